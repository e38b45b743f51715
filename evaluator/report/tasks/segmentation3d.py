"""3D segmentation: IoU, by distance too, confusion, and frames from above, in 3D and as range images."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from evaluator.report.blocks import Block, Chart, Charts
from evaluator.report.labels import (
    EMPTY,
    FrameLabels,
    frame_scores,
    label_blocks,
    labels_at,
    log_classes,
    raster,
    scene,
)
from evaluator.report.material import Material
from evaluator.report.scene import Detail, Scene, cloud, title_of
from evaluator.report.svg import Line, line_chart, linear_axis
from shared.arrays import Float64, UInt8
from shared.data import read_points
from shared.data.types import Sample
from shared.geometry import transform_points
from shared.lazy import lazy_import
from shared.tasks.segmentation3d import PointClasses

rr = lazy_import("rerun", install="pip install 'awml-deploy[rerun]'")

__all__ = ["frame_scores", "log", "metric_blocks", "picture", "source"]

# Rows of a range image.
_ROWS = 64
# Of the pitches of a frame's points, the range image shows all but so many at either end.
_STRAYS = 0.002


def metric_blocks(material: Material) -> list[Block]:
    """IoU of the classes and over distance, and the confusion of the shown run."""
    cards, bars, table = label_blocks(material)
    return [cards, bars, *_over_distance(material), table]


def _over_distance(material: Material) -> list[Block]:
    rings = {name: material.evaluations[name]["metrics"]["rings"] for name in material.drawn}
    bounds = [[float(bound) for bound in ring.split("-")] for ring in rings[material.shown]]
    if not bounds:
        return []
    x, y = linear_axis("distance [m]", 0, bounds[-1][1]), linear_axis("", 0, 1)
    charts = []
    for key, title in (("mIoU", "mIoU"), ("accuracy", "share that is right")):
        lines = [
            Line(
                [(sum(bound) / 2, value) for bound, value in zip(bounds, values, strict=True) if value is not None],
                f"s{i}",
                dots=True,
            )
            for i, values in enumerate([ring["overall"][key] for ring in of.values()] for of in rings.values())
        ]
        charts.append(Chart(title, line_chart(f"{title} over distance", lines, x, y)))
    return [Charts(charts, [(f"s{i}", name) for i, name in enumerate(rings)], "By distance from the lidar, in rings")]


def source(sample: Sample) -> Path:
    """The sample's points."""
    return sample.lidar.path


def picture(material: Material, position: int, key: str, title: str) -> Scene:
    """The points with the labels of ground truth and runs."""
    sample: Sample = material.sample(position)
    labels = labels_at(material, position, PointClasses)
    note = f"{title}. Forward is up, rings every 30 m; in the range image forward is in the middle, left is left."
    media = functools.partial(_media, sample, labels)
    return scene(material, key, title_of(sample.scene, sample.timestamp), note, labels, media, cloud=True)


def _media(sample: Sample, labels: FrameLabels, detail: Detail) -> dict[str, Any]:
    points = np.asarray(read_points(sample.lidar)[:, :3], np.float64)
    whole = np.isfinite(points).all(axis=1)
    points, planes = points[whole], labels.planes()[:, whole]
    ranges = raster(range_image(points, planes, detail.width), "Range image")
    return {"cloud": cloud(transform_points(sample.lidar2ego, points), detail.points, planes), "rasters": [ranges]}


def range_image(points: Float64, planes: UInt8, width: int) -> UInt8:
    """(P, H, W) the planes (P, N) as the lidar sees the points (N, 3): the nearest of a cell, `EMPTY` without one."""
    image = np.full((len(planes), _ROWS, width), EMPTY, np.uint8)
    distances = np.linalg.norm(points, axis=1)
    seen = np.flatnonzero(distances > 0)
    if not len(seen):
        return image
    far_first = seen[np.argsort(-distances[seen], kind="stable")]
    x, y, z = points[far_first].T
    pitches = np.arcsin(z / distances[far_first])
    low, high = np.quantile(pitches, [_STRAYS, 1 - _STRAYS])
    rows = (_ROWS * (high - pitches) / max(high - low, 1e-6)).astype(np.int64)
    columns = (width * (0.5 - np.arctan2(y, x) / (2 * np.pi))).astype(np.int64)
    image[:, np.clip(rows, 0, _ROWS - 1), np.clip(columns, 0, width - 1)] = planes[:, far_first]
    return image


def log(stream: Any, material: Material, position: int) -> None:
    """The points with each set of labels, in the ego frame."""
    log_classes(stream, material.spec.classes)
    sample: Sample = material.sample(position)
    labels = labels_at(material, position, PointClasses)
    points = transform_points(sample.lidar2ego, np.asarray(read_points(sample.lidar)[:, :3], np.float64))
    for name, plane in zip(["ground_truth", *material.drawn], labels.planes(), strict=True):
        stream.log(name, rr.Points3D(points, class_ids=plane, radii=0.04))
