"""Voxelization on a GPU: the kernels of ``voxelize.cu``, the memory that they work in, and the way of a frame there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from runtime.cuda.gpu import Gpu, Kernels
from runtime.cuda.staging import Staging
from runtime.lidar.grid import VoxelGrid
from shared.arrays import Float32
from shared.errors import InferenceError

VOXELIZE_FILE = Path(__file__).with_name("voxelize.cu")

# The same names and numbers as in common.cu and voxelize.cu.
FRAME_HEADER = 4
TILE = 1024
HEADER_WORDS = 32
#: The first words of a result's header.
COUNTERS = ("points_nan", "points_out_of_range", "voxels", "points_in_dropped_voxels", "points_over_voxel_limit")

# Arguments: P an address, i an int32, f a float32, d a float64.
VOXELIZE_SIGNATURES = {
    "voxelize_cells": "PPPP",
    "voxelize_count": "PPPP",
    "voxelize_number": "PPPPPPP",
    "voxelize_slots": "PPPPPP",
}

# Frames of up to so many points fit without a new buffer: twice what the largest lidar set-ups give.
POINT_CAPACITY = 1 << 19

_UNUSED = 0xFFFFFFFF


def voxelize_constants(grid: VoxelGrid, columns: int) -> dict[str, str]:
    """The macros of the kernels: the grid, its limits, and the columns of a point."""
    constants = {
        "POINT_FEATURES": str(columns),
        "MAX_POINTS": str(grid.max_points_per_voxel),
        "MAX_VOXELS": str(grid.max_voxels),
    }
    for axis, name in enumerate("XYZ"):
        constants[f"GRID_N{name}"] = str(grid.grid_size[axis])
        constants[f"GRID_MIN_{name}"] = float_literal(grid.point_cloud_range[axis])
        constants[f"VOXEL_{name}"] = float_literal(grid.voxel_size[axis])
    return constants


def float_literal(value: float) -> str:
    """A float32 as C++ writes it exactly, in hexadecimal."""
    return f"{float(np.float32(value)).hex()}f"


class VoxelMemory:
    """What lies between the kernels, see ``voxelize.cu``, and a frame's page-locked counterpart.

    Args:
        gpu: where.
        grid: the grid and its limits.
        columns: of a point.
        result_words: of the request's result, whose first `HEADER_WORDS` are counters.

    Attributes:
        columns: of a point.
        max_voxels: of a frame.
        capacity: points of a frame that there is room for.
    """

    def __init__(self, gpu: Gpu, grid: VoxelGrid, columns: int, result_words: int) -> None:
        cells = grid.grid_size[0] * grid.grid_size[1] * grid.grid_size[2]
        self.columns, self.max_voxels = columns, grid.max_voxels
        self._gpu = gpu
        self.grow(POINT_CAPACITY)
        self.first_of_cell = gpu.allocate((cells,), np.uint32)
        self.voxel_of_cell = gpu.allocate((cells,), np.int32)
        self.cell_of_voxel = gpu.allocate((grid.max_voxels,), np.int32)
        self.slots = gpu.allocate((grid.max_voxels, grid.max_points_per_voxel), np.uint32)
        self.in_voxel = gpu.allocate((grid.max_voxels,), np.int32)
        self.result = gpu.allocate((result_words,), np.int32)
        self.host_result = gpu.pinned((result_words,), np.int32)

    def grow(self, points: int) -> None:
        """Make room for frames of so many points."""
        words, gpu = FRAME_HEADER + points * self.columns, self._gpu
        # All of it, or none: a GPU that is full leaves what was there before.
        frame, host_frame = gpu.allocate((words,), np.float32), gpu.pinned((words,), np.float32)
        cell_of_point = gpu.allocate((points,), np.int32)
        firsts_of_tile = gpu.allocate((-(-points // TILE),), np.int32)
        self.frame, self.cell_of_point, self.firsts_of_tile = frame, cell_of_point, firsts_of_tile
        self.host_frame: Float32 = host_frame
        self.capacity = points

    def host_points(self, count: int) -> Float32:
        """(count, columns) float32 in page-locked memory, from which the device copies by itself."""
        values = self.host_frame[FRAME_HEADER : FRAME_HEADER + count * self.columns]
        return values.reshape(count, self.columns)

    def upload(self, points: Float32, staging: Staging, stream: Any) -> None:
        """Copy a frame to the device, which fetches page-locked memory by itself, beside its other work."""
        host, device = self.host_frame, self.frame.address
        if len(points):
            staging.to_device(points, device + FRAME_HEADER * host.itemsize, stream)
        # Behind the points, which are on their way meanwhile.
        host[:1].view(np.int32)[0] = len(points)
        self._gpu.to_device(host[:FRAME_HEADER], device, stream)

    def reset(self, stream: Any) -> None:
        """Empty what has to be empty when a request starts."""
        self._gpu.fill(self.first_of_cell, _UNUSED, stream)
        self._gpu.fill(self.slots, _UNUSED, stream)
        self._gpu.fill(self.in_voxel, 0, stream)
        self._gpu.fill(self.result.first(HEADER_WORDS), 0, stream)

    def voxelize(self, kernels: Kernels, blocks: int) -> None:
        """Enqueue the kernels.

        Args:
            kernels: with those of `VOXELIZE_SIGNATURES`.
            blocks: of kernels that walk over points, as many as the GPU runs at a time.
        """
        tiles = self.firsts_of_tile.shape[0]
        kernels.launch("voxelize_cells", blocks, 256, self.frame, self.first_of_cell, self.cell_of_point, self.result)
        kernels.launch(
            "voxelize_count", tiles, 256, self.frame, self.first_of_cell, self.cell_of_point, self.firsts_of_tile
        )
        kernels.launch(
            "voxelize_number", tiles, 256, self.frame, self.first_of_cell, self.cell_of_point, self.firsts_of_tile,
            self.voxel_of_cell, self.cell_of_voxel, self.result,
        )  # fmt: skip
        kernels.launch(
            "voxelize_slots", blocks, 256,
            self.frame, self.cell_of_point, self.voxel_of_cell, self.slots, self.in_voxel, self.result,
        )  # fmt: skip

    def counters(self, points: int) -> dict[str, int]:
        """What became of the frame's points, of the result on the host; see `runtime.lidar.voxelize.voxelize`."""
        words = self.host_result
        values = {"points": points, **{name: int(words[index]) for index, name in enumerate(COUNTERS)}}
        found = values["voxels"]
        values["voxels"] = min(found, self.max_voxels)
        values["voxels_dropped"] = found - values["voxels"]
        return values


def row_buckets(component: str, limits: tuple[int, int | None], max_voxels: int, count: int) -> list[int]:
    """Numbers of rows that a component of voxels is run with, ascending, of equal steps.

    Args:
        component: its name.
        limits: the fewest rows that it takes, and the most; None: as many as you like.
        max_voxels: the most that a frame has.
        count: of buckets, at most.

    Raises:
        InferenceError: it takes fewer rows than a frame may have.
    """
    low, high = limits
    if high is not None and high < max_voxels:
        raise InferenceError(
            f"takes at most {high} pillars, a frame may have {max_voxels}",
            where=component,
            hint="raise max_shape of its tensorrt_profile to max_voxels and build again",
        )
    most = max(max_voxels, low)
    step = -(-most // count)
    return sorted({max(low, min(number * step, most)) for number in range(1, count + 1)})
