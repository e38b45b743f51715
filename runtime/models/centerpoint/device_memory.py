"""Device memory of a CenterPoint's lane."""

from __future__ import annotations

import numpy as np

from runtime.cuda.gpu import Gpu
from runtime.models.centerpoint.device_kernels import BINS, BOX_WORDS, FRAME_HEADER, HEADER_WORDS, STATE_WORDS, TILE
from runtime.models.centerpoint.parameters import CenterPointParameters
from shared.arrays import Float32

# Frames of up to so many points fit without a new buffer: twice what the largest lidar set-ups give.
POINT_CAPACITY = 1 << 19


class Buffers:
    """What lies between the kernels, see the .cu files, and its page-locked counterpart."""

    def __init__(self, gpu: Gpu, parameters: CenterPointParameters) -> None:
        cells = parameters.grid_size[0] * parameters.grid_size[1] * parameters.grid_size[2]
        voxels, points = parameters.max_voxels, parameters.max_points_per_voxel
        self._gpu = gpu
        self.grow(POINT_CAPACITY, parameters.decoration.raw_features)
        self.first_of_cell = gpu.allocate((cells,), np.uint32)
        self.voxel_of_cell = gpu.allocate((cells,), np.int32)
        self.cell_of_voxel = gpu.allocate((voxels,), np.int32)
        self.slots = gpu.allocate((voxels, points), np.uint32)
        self.in_voxel = gpu.allocate((voxels,), np.int32)
        result = HEADER_WORDS + len(parameters.tasks) * parameters.nms.post_max_size * BOX_WORDS
        self.result = gpu.allocate((result,), np.int32)
        self.host_result = gpu.pinned((result,), np.int32)
        self.states = gpu.allocate((len(parameters.tasks), STATE_WORDS + BINS), np.uint32)

    def grow(self, points: int, features: int) -> None:
        """Make room for frames of so many points."""
        self.capacity = points
        words = FRAME_HEADER + points * features
        self.frame = self._gpu.allocate((words,), np.float32)
        self.host_frame: Float32 = self._gpu.pinned((words,), np.float32)
        self.cell_of_point = self._gpu.allocate((points,), np.int32)
        self.firsts_of_tile = self._gpu.allocate((-(-points // TILE),), np.int32)
