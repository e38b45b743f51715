"""Lidar frames as models of voxels read them, and what a user is told of points that are lost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from runtime.lidar.grid import VoxelizedPoints
from runtime.pipeline import Counters, PipelineInput
from shared.arrays import Float32
from shared.data import load_points_counted
from shared.data.types import Sample
from shared.errors import InferenceError


def reader(parameters: VoxelizedPoints) -> Callable[[Sample], PipelineInput]:
    """A function that reads (N, C) float32 points of a sample, with the sweeps and the range filter of the training."""

    def read(sample: Sample) -> PipelineInput:
        loaded = load_points_counted(sample, parameters.points)
        counters = {"read": loaded.read, "read_nan": loaded.invalid, "read_out_of_range": loaded.outside}
        return PipelineInput(loaded.points, counters)

    return read


def checked(points: Float32, columns: int) -> Float32:
    """The points, C-contiguous.

    Raises:
        InferenceError: another number of columns.
    """
    if points.ndim != 2 or points.shape[1] != columns:
        raise InferenceError(f"points have the shape {points.shape}, the model takes (N, {columns})")
    return np.ascontiguousarray(points, np.float32)


def lost_points(counters: Counters, parameters: VoxelizedPoints) -> list[str]:
    """Losses that change results; points over a full voxel's limit are not among them, training drops them too."""
    lines = []
    if counters["voxels_dropped"]:
        lines.append(
            f"{counters['voxels_dropped']} of {counters['voxels'] + counters['voxels_dropped']} voxels did not fit "
            f"({counters['points_in_dropped_voxels']} of {counters['points']} points lost): the limit is "
            f"{parameters.max_voxels} a frame (max_voxels of the training config)"
        )
    if counters["read_nan"]:
        lines.append(f"{counters['read_nan']} of {counters['read']} points are NaN or infinite and were left out")
    return lines
