"""Device memory and kernels of an FRNet's lane; the names are those of the .cu files."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from runtime.cuda.gpu import C_TYPES, DeviceArray, Gpu, Kernels
from runtime.models.frnet.interpolate import MOST
from runtime.models.frnet.parameters import FEATURES, FRNetParameters, RangeImage
from shared.arrays import Float32, UInt8

# In the order in which they build on each other.
FILES = tuple(Path(__file__).with_name(f"{step}.cu") for step in ("interpolate", "group", "classify"))

# The same numbers as in the .cu files.
FRAME_HEADER = 4
BLOCK = 256
TILE = 1024
USABLE, FIRST, GAPS, FRUSTUMS, POINTS_OVER = range(5)
HEADER_WORDS, HEADER_BYTES = 8, 32
# Of a point: score and margin in float32, label.
ANSWER_BYTES = 9


@dataclass(frozen=True)
class Answer:
    """The classes of a number of points.

    Attributes:
        scores, margins: of the device, the bytes of (rows,) float32.
        labels: of the device, (rows,) uint8.
        host: where the result comes to, header and classes.
        host_scores, host_margins, host_labels: views of it.
    """

    scores: DeviceArray
    margins: DeviceArray
    labels: DeviceArray
    host: UInt8
    host_scores: Float32
    host_margins: Float32
    host_labels: UInt8


class Buffers:
    """What lies between the kernels, what the network is given, and where the answer comes to on the host.

    Args:
        gpu: where.
        parameters: of the model.
        rows, frustums: the most that the network takes.
        classes: of its answer.
        dtype: of its answer.
    """

    def __init__(
        self, gpu: Gpu, parameters: FRNetParameters, rows: int, frustums: int, classes: int, dtype: np.dtype[Any]
    ) -> None:
        pixels, cells = _pixels(parameters.interpolation), _pixels(parameters.frustums)
        self.frame = gpu.allocate((FRAME_HEADER + rows * FEATURES,), np.int32)
        self.host_count = gpu.pinned((FRAME_HEADER,), np.int32)
        self.points = gpu.allocate((rows, FEATURES), np.float32)
        self.cell_of_row = gpu.allocate((rows,), np.int32)
        self.shown = gpu.allocate((pixels,), np.uint64)
        self.gaps_of_tile = gpu.allocate((-(-pixels // TILE),), np.int32)
        self.in_cell = gpu.allocate((cells,), np.int32)
        self.frustums_of_tile = gpu.allocate((-(-cells // TILE),), np.int32)
        self.frustum_of_cell = gpu.allocate((cells,), np.int32)
        self.coors = gpu.allocate((rows, 2), np.int32)
        self.inverse_map = gpu.allocate((rows,), np.int32)
        self.slots = gpu.allocate((frustums, parameters.points_per_frustum), np.int32)
        self.strides = gpu.upload(np.array(parameters.strides, np.int32))
        self.pixel_frustums = gpu.allocate(
            (sum(_pixels(parameters.frustums, stride) for stride in parameters.strides),), np.int32
        )
        self.probabilities = gpu.allocate((rows, classes), dtype)
        size = (HEADER_BYTES + rows * ANSWER_BYTES,)
        self.result, self.host_result = gpu.allocate(size, np.uint8), gpu.pinned(size, np.uint8)
        self.header = replace(self.result, shape=(HEADER_WORDS,), dtype=np.dtype(np.int32))
        self.host_header = self.host_result[:HEADER_BYTES].view(np.int32)

    def answer(self, rows: int) -> Answer:
        """Where the classes of so many points go, in the result behind the header."""
        scores, margins, labels, end = (HEADER_BYTES + width * rows for width in (0, 4, 8, ANSWER_BYTES))
        host = self.host_result[:end]
        return Answer(
            scores=self.result.part(scores, (4 * rows,)),
            margins=self.result.part(margins, (4 * rows,)),
            labels=self.result.part(labels, (rows,)),
            host=host,
            host_scores=host[scores:margins].view(np.float32),
            host_margins=host[margins:labels].view(np.float32),
            host_labels=host[labels:],
        )

    def inputs(self, rows: int, frustums: int) -> dict[str, DeviceArray]:
        """The network's inputs of so many points in so many frustums, see `runtime.models.frnet.steps`."""
        return {
            "points": self.points.first(rows),
            "coors": self.coors.first(rows),
            "inverse_map": self.inverse_map.first(rows),
            "frustum_points": self.slots.first(frustums),
            "pixel_frustums": self.pixel_frustums,
        }


def load_kernels(gpu: Gpu, parameters: FRNetParameters, dtype: np.dtype[Any], stream: Any) -> Kernels:
    """The kernels, compiled for a model whose answer is of a type, to run on a stream."""
    return gpu.kernels(FILES, _SIGNATURES, kernel_constants(parameters, dtype), stream)


def kernel_constants(parameters: FRNetParameters, dtype: np.dtype[Any]) -> dict[str, str]:
    """The macros of the kernels. Floats are written exactly, in hexadecimal."""
    up, down = (abs(angle / 180.0 * math.pi) for angle in (parameters.sensor.fov_up, parameters.sensor.fov_down))
    x, y, z = (value.hex() for value in parameters.sensor.position)
    return {
        "IMAGE_H": str(parameters.interpolation.height),
        "IMAGE_W": str(parameters.interpolation.width),
        "FRUSTUM_H": str(parameters.frustums.height),
        "FRUSTUM_W": str(parameters.frustums.width),
        "SLOTS": str(parameters.points_per_frustum),
        "PROBABILITY_T": C_TYPES[dtype.name],
        "AS_AUTOWARE": str(int(parameters.gaps == "autoware")),
        "MOST": _float(MOST),
        "PI": _float(math.pi),
        "FOV_DOWN": _float(down),
        "FOV": _float(up + down),
        "POSITION_X": x,
        "POSITION_Y": y,
        "POSITION_Z": z,
    }


def _pixels(image: RangeImage, stride: int = 1) -> int:
    return (image.height // stride) * (image.width // stride)


def _float(value: float) -> str:
    return f"{float(np.float32(value)).hex()}f"


# Arguments of the kernels: P an address, i an int32.
_SIGNATURES = {
    "project_points": "PPPPP",
    "count_gaps": "PPP",
    "fill_gaps": "PPPiPPP",
    "count_points": "PPPiP",
    "count_frustums": "PP",
    "number_frustums": "PPiPP",
    "group_points": "PPPPiPPPP",
    "pad_frustums": "PiP",
    "show_frustums": "PPiP",
    "classify_points": "PPPiiPPP",
}
