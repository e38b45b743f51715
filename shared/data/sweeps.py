"""The points that a model gets: key frame and sweeps merged, columns chosen, range filtered, as mmdet3d 1.4 does it.

The steps are those of its ``LoadPointsFromFile``, ``LoadPointsFromMultiSweeps(test_mode=True)`` and
``PointsRangeFilter``, with the same number types at each step, so that the result is equal bit for bit. Two details
that look like mistakes are part of it:

- *Alignment.* With ``lidar2sensor = [R^T | -R^T t]`` (t: origin of the sweep's sensor in the key frame), a sweep point
  p belongs at ``R p + t``. mmdet3d computes ``R p + R^T t``, which is right only while the rotation between the frames
  is small. A model trained on such points expects them; ``exact_sweeps`` computes ``R p + t``.
- *Time.* Column 4 of the file (ring) is overwritten by the time lag in seconds: 0 in the key frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.arrays import Bool, Float32
from shared.data.points import read_points
from shared.data.types import PointFile, Sample, Sweep
from shared.errors import InputError

_INTENSITY = 3
_TIME_LAG = 4
_CLOSE = 1.0  # meters, mmdet3d's default radius


@dataclass(frozen=True)
class PointLoading:
    """How a model wants its points. Defaults: AWML's CenterPoint.

    Attributes:
        load_dim: columns of the point files.
        use_dim: columns that the model gets, in order.
        merge_sweeps: whether the pipeline has ``LoadPointsFromMultiSweeps``; it is what overwrites column 4.
        sweeps_num: how many sweeps to merge at most, the most recent first.
        remove_close: drop sweep points with |x| < 1 m and |y| < 1 m in the sweep's own frame (the key frame's stay).
        pad_empty_sweeps: where a sample's source lists no sweeps at all, repeat the key frame ``sweeps_num`` times.
        range_filter: keep points strictly inside (x0, y0, z0, x1, y1, z1), meters; None keeps all, NaN points too.
        norm_intensity: ``tanh`` of column 3 of the key frame, not of sweeps, as ``LoadPointsFromFile`` has it.
        exact_sweeps: align sweeps by the true inverse of ``lidar2sensor``, not by mmdet3d's formula.
    """

    load_dim: int = 5
    use_dim: tuple[int, ...] = (0, 1, 2, 4)
    merge_sweeps: bool = True
    sweeps_num: int = 1
    remove_close: bool = False
    pad_empty_sweeps: bool = False
    range_filter: tuple[float, float, float, float, float, float] | None = None
    norm_intensity: bool = False
    exact_sweeps: bool = False

    def __post_init__(self) -> None:
        if not self.use_dim or not all(0 <= column < self.load_dim for column in self.use_dim):
            raise ValueError(f"use_dim {self.use_dim} must name columns below load_dim {self.load_dim}")
        if self.range_filter is not None and self.use_dim[:3] != (0, 1, 2):
            raise ValueError(f"a range filter needs x, y, z first; use_dim is {self.use_dim}")
        if self.merge_sweeps and self.load_dim <= _TIME_LAG:
            raise ValueError(f"merging sweeps writes the time lag to column {_TIME_LAG}; load_dim is {self.load_dim}")
        if self.norm_intensity and self.load_dim <= _INTENSITY:
            raise ValueError(f"norm_intensity needs column {_INTENSITY}; load_dim is {self.load_dim}")
        if self.sweeps_num < 0:
            raise ValueError(f"sweeps_num {self.sweeps_num} is negative")


@dataclass(frozen=True)
class LoadedPoints:
    """The points that are left, and how many were dropped and why.

    Attributes:
        points: (N, len(use_dim)) float32.
        read: rows after merging, before the range filter.
        invalid: of these, rows with a NaN or infinity in a used column. With a range filter, those with a NaN in x, y
            or z are gone from ``points``; the others are still in it, as they are in mmdet3d.
        outside: of these, rows with finite coordinates outside the range.
    """

    points: Float32
    read: int
    invalid: int
    outside: int


def load_points(sample: Sample, loading: PointLoading) -> Float32:
    """Points of a sample for a model: (N, len(use_dim)) float32, key frame first, then sweeps, file order in each.

    Raises:
        InputError: a point file is missing or broken, or has other columns than ``load_dim``.
    """
    return load_points_counted(sample, loading).points


def load_points_counted(sample: Sample, loading: PointLoading) -> LoadedPoints:
    """``load_points``, with counts of what was read and what was dropped."""
    key_frame = _read(sample.lidar, loading)
    if loading.norm_intensity:
        key_frame[:, _INTENSITY] = np.tanh(key_frame[:, _INTENSITY])
    parts = [key_frame]
    if loading.merge_sweeps:
        key_frame[:, _TIME_LAG] = 0.0
        if sample.lists_sweeps:
            parts += [_aligned(sweep, sample.timestamp, loading) for sweep in sample.sweeps[: loading.sweeps_num]]
        elif loading.pad_empty_sweeps:
            repeated = _without_close(key_frame) if loading.remove_close else key_frame
            parts += [repeated] * loading.sweeps_num
    merged = _columns(parts, loading.use_dim)
    valid = finite_rows(merged)
    invalid = int(len(merged) - np.count_nonzero(valid))
    if loading.range_filter is None:
        return LoadedPoints(merged, len(merged), invalid, 0)
    inside = _inside(merged, loading.range_filter)
    located = finite_rows(merged[:, :3]) if invalid else valid
    outside = int(np.count_nonzero(located & ~inside))
    return LoadedPoints(_rows(merged, inside), len(merged), invalid, outside)


def _read(file: PointFile, loading: PointLoading) -> Float32:
    if file.columns != loading.load_dim:
        raise InputError(
            f"the model loads points of {loading.load_dim} columns, this file has {file.columns}",
            where=str(file.path),
            hint="set data.pad_to if the missing columns may be 0, or correct data.num_features",
        )
    return read_points(file)


def _without_close(points: Float32) -> Float32:
    close = (np.abs(points[:, 0]) < _CLOSE) & (np.abs(points[:, 1]) < _CLOSE)
    return _rows(points, ~close)


def _aligned(sweep: Sweep, timestamp: float, loading: PointLoading) -> Float32:
    """A sweep's points in the key frame's coordinates, with their time lag."""
    points = _read(sweep.points, loading)
    if loading.remove_close:
        points = _without_close(points)
    if loading.exact_sweeps:
        sensor2lidar = np.linalg.inv(sweep.lidar2sensor.astype(np.float64))
        points[:, :3] = points[:, :3] @ sensor2lidar[:3, :3].T + sensor2lidar[:3, 3]
    else:
        _align_as_mmdet3d(points, sweep.lidar2sensor)
    points[:, _TIME_LAG] = timestamp - sweep.timestamp
    return points


def _align_as_mmdet3d(points: Float32, lidar2sensor: npt.NDArray[np.floating[Any]]) -> None:
    """``p R^T - (-R^T t)`` in place.

    Two roundings to float32, as in mmdet3d: after the product (float64 where the matrix is) and after the subtraction.
    """
    points[:, :3] = points[:, :3] @ lidar2sensor[:3, :3]
    points[:, :3] -= lidar2sensor[:3, 3]


# Points have few columns, and NumPy is several times faster over whole columns than over rows.


def _columns(parts: list[Float32], use_dim: tuple[int, ...]) -> Float32:
    """The parts concatenated, with these columns only."""
    merged = np.empty((sum(map(len, parts)), len(use_dim)), np.float32)
    start = 0
    for part in parts:
        for target, source in enumerate(use_dim):
            merged[start : start + len(part), target] = part[:, source]
        start += len(part)
    return merged


def _rows(points: Float32, chosen: Bool) -> Float32:
    """``points[chosen]``; by positions it takes a tenth of the time."""
    return points.take(np.flatnonzero(chosen), axis=0)


def finite_rows(points: Float32) -> Bool:
    """(N,) which rows of (N, C) have finite numbers only; column by column, a tenth of ``all(axis=1)``'s time."""
    finite = np.ones(len(points), bool)
    for column in range(points.shape[1]):
        finite &= np.isfinite(points[:, column])
    return finite


def _inside(points: Float32, limits: tuple[float, ...]) -> Bool:
    """Strictly inside, compared in float32; NaN is outside."""
    low, high = np.asarray(limits, np.float32).reshape(2, 3)
    inside = np.ones(len(points), bool)
    for axis in range(3):
        inside &= (points[:, axis] > low[axis]) & (points[:, axis] < high[axis])
    return inside
