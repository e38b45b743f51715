"""From voxels to the bird's-eye-view image on a GPU: by the encoder's engine, or by one kernel in its place.

The number of pillars is known on the device alone, and an engine's input shape has to be set on the host: so it runs
with a *bucket* of rows, and the kernel with all that there are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from runtime.cuda.gpu import DeviceArray, Kernels
from runtime.cuda.session import DeviceSession, Lane
from runtime.lidar.device_voxels import VoxelMemory, row_buckets
from runtime.models.centerpoint.device_kernels import encode_blocks, encode_warps
from runtime.models.centerpoint.encoder import PillarEncoder, read_encoder
from runtime.models.centerpoint.parameters import ENCODER, CenterPointParameters
from shared.spec import ModelSpec

# Of encoder rows.
BUCKETS = 32


class DeviceEncoder(ABC):
    """Voxels on the device to pillars on the canvas.

    Attributes:
        stages: in the order in which they run.
        buckets: numbers of rows that it can be run with, ascending.
    """

    stages: tuple[str, ...]
    buckets: list[int]

    @abstractmethod
    def enqueue(self, rows: int, mark: Callable[[str], None]) -> None:
        """Put a run on the lane's stream.

        Args:
            rows: one of the buckets; pillars beyond are left out.
            mark: called at the end of each stage.
        """

    @abstractmethod
    def warm_up(self) -> None:
        """Run every component once: backends finish their set-up in the first run, which can't be recorded."""


class EngineEncoder(DeviceEncoder):
    """Decorate, the component, scatter.

    Attributes:
        features: (rows, M, F) what the component is given.
    """

    stages = ("decorate", ENCODER, "scatter")

    def __init__(
        self,
        spec: ModelSpec,
        parameters: CenterPointParameters,
        session: DeviceSession,
        lane: Lane,
        kernels: Kernels,
        buffers: VoxelMemory,
        canvas: DeviceArray,
    ) -> None:
        gpu, encoder = session.gpu, spec.component(ENCODER)
        self._kernels, self._buffers, self._canvas = kernels, buffers, canvas
        self.buckets = row_buckets(ENCODER, session.rows(ENCODER), parameters.max_voxels, BUCKETS)
        rows = self.buckets[-1]
        given, self._output = encoder.inputs[0].name, encoder.outputs[0].name
        shape = (rows, parameters.max_points_per_voxel, parameters.decoration.num_features)
        self.features = gpu.allocate(shape, session.dtype(ENCODER, given))
        self._filled = gpu.allocate((rows,), np.int32)
        pillars = gpu.allocate((rows, 1, parameters.encoder_channels), session.dtype(ENCODER, self._output))
        self._bound = {
            size: lane.bind(ENCODER, {given: self.features.first(size)}, {self._output: pillars.first(size)})
            for size in self.buckets
        }

    def warm_up(self) -> None:
        """See `DeviceEncoder`."""
        for bound in self._bound.values():
            bound.enqueue()

    def enqueue(self, rows: int, mark: Callable[[str], None]) -> None:
        """See `DeviceEncoder`."""
        b = self._buffers
        self._kernels.launch(
            "decorate", -(-rows // 16), 128,
            b.frame, b.slots, b.in_voxel, b.cell_of_voxel, self.features, self._filled, b.result, rows,
        )  # fmt: skip
        mark("decorate")
        self._bound[rows].enqueue()
        mark(ENCODER)
        pillars = self._bound[rows].outputs[self._output]
        self._kernels.launch("scatter", -(-rows // 32), 256, pillars, b.cell_of_voxel, self._canvas, b.result, rows)
        mark("scatter")


class KernelEncoder(DeviceEncoder):
    """All of it in one kernel."""

    stages = (ENCODER,)

    def __init__(
        self,
        encoder: PillarEncoder,
        parameters: CenterPointParameters,
        session: DeviceSession,
        kernels: Kernels,
        buffers: VoxelMemory,
        canvas: DeviceArray,
    ) -> None:
        self._kernels, self._buffers, self._canvas = kernels, buffers, canvas
        self._weights = session.gpu.upload(encoder.packed())
        self._warps = encode_warps(encoder, parameters)
        # As many as run at a time: their warps take one pillar after the other.
        self._blocks = session.gpu.multiprocessors * encode_blocks(encoder)
        self.buckets = [parameters.max_voxels]

    def warm_up(self) -> None:
        """See `DeviceEncoder`: no component runs."""

    def enqueue(self, rows: int, mark: Callable[[str], None]) -> None:  # noqa: ARG002 (it takes all that there are)
        """See `DeviceEncoder`."""
        b = self._buffers
        self._kernels.launch(
            "encode_pillars", self._blocks, self._warps * 32,
            b.frame, b.slots, b.in_voxel, b.cell_of_voxel, self._weights, self._canvas, b.result,
        )  # fmt: skip
        mark(ENCODER)


def kernel_form(parameters: CenterPointParameters, session: DeviceSession) -> PillarEncoder | None:
    """What the kernel is to compute in the encoder's place; None where the component has to run.

    It takes a graph of its form in FP32 or FP16, which is then faster in any case: the component computes every slot of
    every row, nine in ten of them empty.
    """
    origin = session.origin(ENCODER)
    if origin is None:
        return None
    encoder = read_encoder(origin.onnx, half=origin.half)
    return encoder if encoder is not None and encode_warps(encoder, parameters) > 0 else None
