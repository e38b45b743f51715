"""Recordings that break careless readers, each a small data set of its own with a fixed seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from demo.draws import Draws
from demo.elementary import hypot
from demo.lidar import GRID, count_points, points_inside
from demo.recording import Frame, Recording, Sweep, draw_scene, random_stream, record_frame

SPLIT = "hard"
FRAMES = 2
EVALUATED_RANGE = 121.0  # [m]
MILLION = 1_000_000
# Points spread evenly over +-120 m: about 150,000 pillars of 0.4 m, and more of any smaller size.
OVERFLOW_POINTS = 200_000
OVERFLOW_RANGE = 120.0
MISSING_CAMERA = "CAM_BACK_LEFT"

_CASE = 100  # place in the path of the seed, apart from those of ordinary recordings


def hard_case(name: str, seed: int) -> Recording:
    """Record the hard case `name` (a key of HARD_CASES): FRAMES frames, cameras included."""
    number = list(HARD_CASES).index(name)
    scene = draw_scene(seed, SPLIT, number, FRAMES)
    change = HARD_CASES[name]
    frames = []
    for index in range(FRAMES):
        frame = record_frame(scene, seed, SPLIT, number, index, cameras=True, previous=index > 0)
        frames.append(change(frame, random_stream(seed, SPLIT, number, _CASE, index)))
    return Recording(name=f"{name.replace('_', '-')}-{seed}", ego_speed=scene.ego_speed, frames=tuple(frames))


def _with_points(frame: Frame, points: NDArray[np.float32]) -> Frame:
    """Replace the key frame's points and count again."""
    return replace(frame, key=replace(frame.key, points=points), num_lidar_pts=count_points(points, frame.annotations))


def _with_objects(frame: Frame, keep: NDArray[np.bool_]) -> Frame:
    """Keep some of the labels; images keep their pixels, since the objects are still there, unlabeled."""
    rows = np.flatnonzero(keep)
    position = np.cumsum(keep) - 1
    pictures = {}
    for channel, picture in frame.pictures.items():
        kept = keep[picture.boxes.objects]
        boxes_2d = replace(
            picture.boxes,
            corners=picture.boxes.corners[kept],
            objects=position[picture.boxes.objects[kept]],
            visibility=picture.boxes.visibility[kept],
        )
        pictures[channel] = replace(picture, boxes=boxes_2d)
    return replace(
        frame, annotations=frame.annotations.select(rows), num_lidar_pts=frame.num_lidar_pts[rows], pictures=pictures
    )


def _empty_frame(frame: Frame, _rng: Draws) -> Frame:
    """No point in the key frame, none in the sweep before: the files are 0 bytes long."""
    nothing = np.zeros((0, 5), np.float32)
    previous: Sweep | None = replace(frame.previous, points=nothing) if frame.previous is not None else None
    return replace(_with_points(frame, nothing), previous=previous)


def _no_objects_in_range(frame: Frame, _rng: Draws) -> Frame:
    """Only labels beyond the range that is evaluated."""
    distance = hypot(frame.annotations.centers[:, 0], frame.annotations.centers[:, 1])
    return _with_objects(frame, distance > EVALUATED_RANGE)


def _zero_point_objects(frame: Frame, _rng: Draws) -> Frame:
    """No label has a point: half of the objects lose their points, the others their labels."""
    half = _with_objects(frame, np.arange(len(frame.annotations)) % 2 == 0)
    lost = points_inside(frame.key.points, half.annotations)
    return _with_points(half, np.delete(frame.key.points, np.concatenate(lost), axis=0))


def _million_points(frame: Frame, rng: Draws) -> Frame:
    """One million points: the sweep many times over, each copy shifted by a few centimeters."""
    chosen = frame.key.points[np.arange(MILLION) % len(frame.key.points)].copy()
    chosen[:, :3] = np.round((chosen[:, :3] + 0.02 * rng.normals((MILLION, 3))) * GRID) / GRID
    return _with_points(frame, chosen)


def _nan_points(frame: Frame, rng: Draws) -> Frame:
    """Some coordinates and intensities are NaN or infinite, as a faulty driver writes them."""
    points = frame.key.points.copy()
    rows = np.flatnonzero(rng.randoms((len(points),)) < 0.02)
    columns, kinds = (4 * rng.randoms(rows.shape)).astype(np.int64), (3 * rng.randoms(rows.shape)).astype(np.int64)
    points[rows, columns] = np.array([np.nan, np.inf, -np.inf])[kinds]
    return _with_points(frame, points)


def _pillar_overflow(frame: Frame, rng: Draws) -> Frame:
    """More than 128,000 pillars."""
    points = np.empty((OVERFLOW_POINTS, 5), np.float32)
    points[:, :2] = rng.uniforms(-OVERFLOW_RANGE, OVERFLOW_RANGE, (OVERFLOW_POINTS, 2))
    points[:, 2] = rng.uniforms(-1.0, 3.0, (OVERFLOW_POINTS,))
    points[:, 3] = np.floor(rng.uniforms(0.0, 256.0, (OVERFLOW_POINTS,)))
    points[:, 4] = np.floor(rng.uniforms(0.0, 40.0, (OVERFLOW_POINTS,)))
    points[:, :3] = np.round(points[:, :3] * GRID) / GRID
    return _with_points(frame, points)


def _missing_camera(frame: Frame, _rng: Draws) -> Frame:
    """One camera has no image and no entry."""
    return replace(frame, pictures={c: p for c, p in frame.pictures.items() if c != MISSING_CAMERA})


HARD_CASES: dict[str, Callable[[Frame, Draws], Frame]] = {
    "empty_frame": _empty_frame,
    "no_objects_in_range": _no_objects_in_range,
    "zero_point_objects": _zero_point_objects,
    "million_points": _million_points,
    "nan_points": _nan_points,
    "pillar_overflow": _pillar_overflow,
    "missing_camera": _missing_camera,
}
