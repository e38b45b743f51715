"""Device memory of a CenterPoint's lane."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.cuda.gpu import Gpu
from runtime.lidar.device_voxels import HEADER_WORDS, VoxelMemory
from runtime.lidar.voxel_pipeline import BOX_WORDS
from runtime.models.centerpoint.device_kernels import BINS, STATE_WORDS
from runtime.models.centerpoint.parameters import CenterPointParameters


class Buffers(VoxelMemory):
    """What lies between the kernels, see the .cu files, and its page-locked counterpart."""

    def __init__(self, gpu: Gpu, parameters: CenterPointParameters) -> None:
        tasks = len(parameters.tasks)
        result = HEADER_WORDS + tasks * parameters.nms.post_max_size * BOX_WORDS
        super().__init__(gpu, parameters, parameters.decoration.raw_features, result)
        self.states = gpu.allocate((tasks, STATE_WORDS + BINS), np.uint32)

    def reset(self, stream: Any) -> None:
        """See `VoxelMemory`."""
        super().reset(stream)
        self._gpu.fill(self.states, 0, stream)
