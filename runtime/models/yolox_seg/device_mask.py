"""Masks on a GPU: what `runtime.models.yolox_seg.mask` does, as kernels that are equal to it to the bit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime.cuda.gpu import C_TYPES, DeviceArray, Gpu
from runtime.models.yolox.letterbox import Placement
from runtime.models.yolox_seg.mask import LEAST, NEGLIGIBLE, Sampling, samplings
from runtime.models.yolox_seg.parameters import YoloxSegParameters
from shared.arrays import Int32, UInt8
from shared.tasks.segmentation2d import ClassMask

FILES = (Path(__file__).with_name("mask.cu"),)

# The same number as in the .cu file.
BLOCK = 256
# Before the labels: pixels with a NaN, as int32.
_HEADER_BYTES = 4


@dataclass(frozen=True)
class MaskMemory:
    """Memory for the masks of images of one size.

    Attributes:
        lines, columns: (N, 3) int32, their samplings: pixels, and bits of the fraction.
        result: of the device, (4 + 2 H W,) uint8: pixels with a NaN as int32, labels, margins.
        host_result: where it goes.
        height, width: of the image [px].
    """

    lines: DeviceArray
    columns: DeviceArray
    result: DeviceArray
    host_result: UInt8
    height: int
    width: int


class MasksOnDevice:
    """What decides the masks of one lane.

    Args:
        gpu: where.
        stream: where it does.
        probabilities: (B, K, H, W) float32 or float16, of which the first image's mask is decided.
        parameters: of the model.
    """

    def __init__(self, gpu: Gpu, stream: Any, probabilities: DeviceArray, parameters: YoloxSegParameters) -> None:
        self._gpu, self._stream, self._parameters = gpu, stream, parameters
        constants = kernel_constants(probabilities.dtype, probabilities.shape[1])
        self._kernels, self._blocks = gpu.kernels(FILES, _SIGNATURES, constants, stream), gpu.multiprocessors * 8
        self._probabilities = probabilities
        by_logs = parameters.mask.convention == "awml"
        self._logs = gpu.allocate(probabilities.shape[1:], np.float32) if by_logs else None

    def memory(self, placement: Placement) -> MaskMemory:
        """Memory for images of one size."""
        gpu, size = self._gpu, (_HEADER_BYTES + 2 * placement.height * placement.width,)
        lines, columns = (gpu.upload(_table(each)) for each in samplings(placement, self._parameters))
        result, host_result = gpu.allocate(size, np.uint8), gpu.pinned(size, np.uint8)
        return MaskMemory(lines, columns, result, host_result, placement.height, placement.width)

    def enqueue(self, memory: MaskMemory) -> None:
        """Put the decision on the stream, and the copy of the mask to the host."""
        kernel, layers, shape = "decide_in_place", self._probabilities, self._probabilities.shape[2:]
        if self._logs is not None:
            count = int(np.prod(self._logs.shape))
            self._kernels.launch("take_logs", self._blocks, BLOCK, self._probabilities, count, self._logs)
            kernel, layers = "decide_by_logs", self._logs
        result, pixels = memory.result, memory.height * memory.width
        pixels_nan = result.first(_HEADER_BYTES)
        self._gpu.fill(pixels_nan, 0, self._stream)
        self._kernels.launch(
            kernel, self._blocks, BLOCK,
            layers, *shape, memory.lines, memory.columns, memory.height, memory.width,
            result.part(_HEADER_BYTES, (pixels,)), result.part(_HEADER_BYTES + pixels, (pixels,)), pixels_nan,
        )  # fmt: skip
        self._gpu.to_host(memory.result, memory.host_result, self._stream)


def mask_in(memory: MaskMemory) -> tuple[ClassMask, int]:
    """The mask that was copied to the host, and how many of its pixels had a NaN."""
    labels, margins = memory.host_result[_HEADER_BYTES:].reshape(2, memory.height, memory.width).copy()
    return ClassMask(labels, margins), int(memory.host_result[:_HEADER_BYTES].view(np.int32)[0])


def kernel_constants(dtype: np.dtype[Any], classes: int) -> dict[str, str]:
    """The macros of the kernels; floats are written exactly, in hexadecimal."""
    return {
        "MASK_T": C_TYPES[dtype.name],
        "CLASSES": str(classes),
        "LEAST": f"{float(LEAST).hex()}f",
        "NEGLIGIBLE": f"({NEGLIGIBLE.hex()}f)",
    }


def _table(sampling: Sampling) -> Int32:
    return np.concatenate([sampling.pixels, sampling.fractions.view(np.int32)[:, None]], axis=1)


# Arguments of the kernels: P an address, i an int32.
_SIGNATURES = {
    "take_logs": "PiP",
    "decide_by_logs": "PiiPPiiPPP",
    "decide_in_place": "PiiPPiiPPP",
}
