"""Hard voxelization: the points of a frame sorted into the cells of a grid.

The same voxels, in the same order and with the same limits, bit for bit, as the deterministic CPU operator that
mmdetection3d calls (mmcv, ``ops/csrc/pytorch/cpu/voxelization.cpp``), which walks over the points one by one:

- the cell of a point is ``floor((point - minimum) / voxel_size)`` per axis, computed in float32;
- a point outside the grid is left out;
- a voxel is numbered when its first point comes, until ``max_voxels`` are; a point of a later voxel is left out;
- a voxel keeps its first ``max_points`` points.

One difference: a point whose other features (intensity, time) are NaN or infinite is left out here and kept there.

Without a loop over points: a table maps a cell to its first point, numbers follow from a running sum over first
points, and one sort of (voxel number, point number) brings the points of a voxel together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runtime.buffers import rows_as_items
from runtime.lidar.grid import VoxelGrid
from shared.arrays import Bool, Float32, Int32, Int64


@dataclass(frozen=True)
class Voxels:
    """V voxels that hold P points of C features.

    Attributes:
        points: (P, C) float32, voxel after voxel; within a voxel in the order of the frame.
        voxel_of_point: (P,) int64, ascending.
        rows: (P,) int64, ascending: ``voxel * max_points + slot``, the row of a point in the dense tensor.
        num_points: (V,) int32, at least 1.
        coordinates: (V, 3) int32, cell along z, y, x.
        counters: what became of the frame's points, see `voxelize`.
    """

    points: Float32
    voxel_of_point: Int64
    rows: Int64
    num_points: Int32
    coordinates: Int32
    counters: dict[str, int]

    def __len__(self) -> int:
        return len(self.num_points)


def cell_table(grid: VoxelGrid) -> Int32:
    """The table that `voxelize` works in: one int32 a cell, allocated once. It needs no clearing between frames,
    because a frame reads only the cells that it has written."""
    return np.empty(int(np.prod(grid.grid_size, dtype=np.int64)), np.int32)


def voxelize(points: Float32, grid: VoxelGrid, table: Int32) -> Voxels:
    """Sort the points of one frame into voxels.

    Args:
        points: (N, C) float32, C-contiguous; x, y, z [m] first, in the frame of the grid.
        grid: the grid and its limits.
        table: from `cell_table` of the same grid; overwritten.

    Returns:
        The voxels. Their counters add up: ``points`` of the frame = ``points_nan`` (a feature is NaN or infinite; one
        such value would spread over the whole map) + ``points_out_of_range`` + ``points_in_dropped_voxels`` +
        ``points_over_voxel_limit`` (the voxel was full) + the points kept. ``voxels`` were kept, ``voxels_dropped``
        did not fit.
    """
    finite = np.isfinite(points)
    counters = {"points": len(points), "points_nan": 0}
    if not finite.all():
        valid = finite.all(axis=1)
        points = points[valid]
        counters["points_nan"] = counters["points"] - len(points)

    cells, inside = _cells(points, grid)
    counters["points_out_of_range"] = len(points) - int(np.count_nonzero(inside))
    if counters["points_out_of_range"]:
        points = points[inside]
        cells = cells[inside]

    voxel_of_point, first_points = _number_voxels(cells, table)
    counters["voxels"] = min(len(first_points), grid.max_voxels)
    counters["voxels_dropped"] = len(first_points) - counters["voxels"]
    first_points = first_points[: counters["voxels"]]

    order, voxels = _group(voxel_of_point)
    if counters["voxels_dropped"]:
        # Grouped by voxel number, the points of the voxels that do not fit are the last ones.
        fitting = np.searchsorted(voxels, grid.max_voxels)
        order, voxels = order[:fitting], voxels[:fitting]
    counters["points_in_dropped_voxels"] = len(points) - len(order)

    in_voxel = np.bincount(voxels, minlength=counters["voxels"])
    slots = np.arange(len(voxels)) - (np.cumsum(in_voxel) - in_voxel)[voxels]
    counters["points_over_voxel_limit"] = int(np.maximum(in_voxel - grid.max_points_per_voxel, 0).sum())
    if counters["points_over_voxel_limit"]:
        has_slot = slots < grid.max_points_per_voxel
        order, voxels, slots = order[has_slot], voxels[has_slot], slots[has_slot]

    return Voxels(
        points=_take_rows(points, order),
        voxel_of_point=voxels,
        rows=voxels * grid.max_points_per_voxel + slots,
        num_points=np.minimum(in_voxel, grid.max_points_per_voxel).astype(np.int32),
        coordinates=_coordinates(cells[first_points], grid),
        counters=counters,
    )


def _cells(points: Float32, grid: VoxelGrid) -> tuple[Int32, Bool]:
    """Number of the cell of each point (z major, x minor) and whether it is inside; outside the number means nothing.

    The quotient is formed in float32 from float32 constants, as the operator does. A quotient of at least zero is
    truncated, which is its floor; negative ones are outside whatever their floor.
    """
    cells = np.zeros(len(points), np.int32)
    inside = np.ones(len(points), np.bool_)
    for axis in (2, 1, 0):
        quotient = (points[:, axis] - np.float32(grid.point_cloud_range[axis])) / np.float32(grid.voxel_size[axis])
        inside &= (quotient >= 0) & (quotient < grid.grid_size[axis])
        # Clipped so that a point far outside converts without a warning.
        np.clip(quotient, 0, grid.grid_size[axis], out=quotient)
        cells *= grid.grid_size[axis]
        cells += quotient.astype(np.int32)
    return cells, inside


def _number_voxels(cells: Int32, table: Int32) -> tuple[Int32, Int64]:
    """Number the voxels in the order in which their first points come.

    Returns:
        (N,) the voxel number of each point, and (V,) the first point of each voxel.
    """
    numbers = np.arange(len(cells), dtype=np.int32)
    # Of several values assigned to one element NumPy keeps the last: backwards, that is a cell's first point.
    table[cells[::-1]] = numbers[::-1]
    first_of_point = table[cells]
    is_first = first_of_point == numbers
    voxel_of_first = np.cumsum(is_first, dtype=np.int32) - np.int32(1)
    return voxel_of_first[first_of_point], np.flatnonzero(is_first)


def _group(voxel_of_point: Int32) -> tuple[Int64, Int64]:
    """Points ordered by voxel, then by their place in the frame: (N,) point numbers and (N,) their voxels.

    Both numbers go into one int64 key: keys are distinct, so the fastest sort that NumPy has will do.
    """
    bits = len(voxel_of_point).bit_length()
    keys = voxel_of_point.astype(np.int64)
    keys <<= bits
    keys |= np.arange(len(keys))
    keys.sort()
    return keys & ((1 << bits) - 1), keys >> bits


def _take_rows(points: Float32, order: Int64) -> Float32:
    """``points[order]``, a row at a time."""
    taken = np.empty((len(order), points.shape[1]), np.float32)
    rows_as_items(taken)[:] = rows_as_items(points)[order]
    return taken


def _coordinates(cells: Int32, grid: VoxelGrid) -> Int32:
    """(V, 3) int32 z, y, x of the cell numbers (V,)."""
    rest, x = np.divmod(cells, np.int32(grid.grid_size[0]))
    z, y = np.divmod(rest, np.int32(grid.grid_size[1]))
    return np.stack([z, y, x], axis=1)
