"""A frame of 3D detection to explore: boxes, points, and camera images with the boxes on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from evaluator.report.boxes3d import Frames, frames_of, matches, nearest, thresholds
from evaluator.report.camera_views import outlines
from evaluator.report.material import Material
from evaluator.report.scene import Detail, Scene, cloud, numbers, photo, title_of
from shared.arrays import Int64
from shared.data import read_points
from shared.data.types import Sample
from shared.geometry import invert_pose, transform_points
from shared.metrics.box_table import BoxTable
from shared.metrics.nuscenes import ERROR_DISTANCE

# Boxes of a run that a frame holds: the surest ones.
_MOST_BOXES = 150


def scene(material: Material, position: int, key: str, token: str) -> Scene:
    """The frame at ``position`` of the truth, whose sample is ``token``."""
    frames = _surest(frames_of(material, position))
    runs = material.drawn
    sample: Sample = material.sample(position)
    shown, *others = (frames.predictions[name] for name in runs)
    classes = material.spec.classes
    tables = [
        _table(boxes, matches(boxes, frames.truths), nearest(boxes, frames.truths, len(classes)))
        for boxes in (shown, *others)
    ]
    for other, table in zip(others, tables[1:], strict=True):
        partners = matches(shown, other)
        tables[0]["partner"] = partners.tolist()
        table["partner"] = _inverse(partners, len(other)).tolist()
    head = {
        "kind": "boxes3d",
        "classes": classes,
        "runs": runs,
        "thresholds": [numbers(thresholds(material, name), 4) for name in runs],
        "limit": ERROR_DISTANCE,
    }
    note = (
        f"{token}. Found: a box of the class within {ERROR_DISTANCE:g} m of the label's center. "
        "Labels without points in them are left out. Forward is up, rings every 30 m."
    )
    data = {"truth": _places(frames.truths), "runs": tables}
    title = title_of(sample.scene, sample.timestamp)
    return Scene(key, title, note, head, data, lambda detail: _media(sample, frames, runs, detail))


def _surest(frames: Frames) -> Frames:
    kept = {
        name: boxes.select(np.argsort(-boxes.scores, kind="stable")[:_MOST_BOXES])
        for name, boxes in frames.predictions.items()
    }
    return Frames(frames.truths, kept)


def _inverse(partners: Int64, count: int) -> Int64:
    back = np.full(count, -1, np.int64)
    known = np.flatnonzero(partners >= 0)
    back[partners[known]] = known
    return back


def _places(boxes: BoxTable) -> dict[str, Any]:
    """Seven numbers a box: center, size [m], yaw [rad]."""
    rows = np.concatenate([boxes.centers, boxes.sizes, boxes.yaws[:, None]], axis=1)
    return {"boxes": numbers(rows, 2), "labels": boxes.labels.tolist()}


def _table(boxes: BoxTable, matched: Int64, near: Int64) -> dict[str, Any]:
    return {
        **_places(boxes),
        "scores": numbers(boxes.scores, 3),
        "match": matched.tolist(),
        "near": near.tolist(),
    }


def points_of(material: Material, position: int) -> npt.NDArray[np.float64]:
    """(N, 3) points of the frame in the ego frame [m].

    Raises:
        InputError: the file is missing or broken.
    """
    return _points(material.sample(position))


def _points(sample: Sample) -> npt.NDArray[np.float64]:
    points = read_points(sample.lidar)[:, :3]
    return transform_points(sample.lidar2ego, points[np.isfinite(points).all(axis=1)])


def _media(sample: Sample, frames: Frames, runs: list[str], detail: Detail) -> dict[str, Any]:
    """The points, and the images of those cameras whose file is there."""
    ego2lidar = invert_pose(sample.lidar2ego)
    photos = []
    for channel, camera in sample.cameras.items():
        if camera.image is None or not camera.image.is_file():
            continue
        image = photo(camera.image, detail.width, detail.quality, upright=False)
        size = (camera.width or image["width"], camera.height or image["height"])
        drawn = [
            outlines(camera, ego2lidar, size, (boxes.centers, boxes.sizes, boxes.yaws))
            for boxes in (frames.truths, *(frames.predictions[name] for name in runs))
        ]
        photos.append({**image, "width": size[0], "height": size[1], "name": channel, "outlines": drawn})
    return {"cloud": cloud(_points(sample), detail.points), "photos": photos}
