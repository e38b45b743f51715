"""YOLOX on a GPU: letterbox, the network, and the choice of rows as CUDA work on device memory.

image -> upload -> letterbox -> yolox -> select -> download

The image goes to the device as the camera gave it, and what comes back are the rows that score high enough, some
hundred of thousands. Their decoding and suppression, in NumPy, is what the other backends run.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.cuda.gpu import DeviceArray, DeviceOutputs
from runtime.cuda.session import DeviceSession
from runtime.models.yolox.letterbox import CONVENTIONS, Letterbox, Placement, place
from runtime.models.yolox.parameters import YoloxParameters
from shared.spec import ModelSpec

FILES = (Path(__file__).with_name("yolox.cu"),)

# The same numbers as in yolox.cu.
BLOCK = 256
HEADER_WORDS = 2
PICKED, NOT_NUMBERS = 0, 1

# OpenCV's weights of linear interpolation add up to this.
_WEIGHT = 2048
# So many rows are fetched before it is known how many there are.
EXPECTED_ROWS = 512
# Sizes of images that are kept; a vehicle has a few.
SIZES_KEPT = 8

Int32 = npt.NDArray[np.int32]


def unsupported(parameters: YoloxParameters) -> str | None:
    """Why the kernels can't serve a model; None when they can."""
    if CONVENTIONS[parameters.image.resize].cubic:
        return (
            f"images are scaled by cubic interpolation (resize: {parameters.image.resize}); the kernels scale linearly"
        )
    return None


def neighbors(source: int, target: int, *, clamp: bool) -> Int32:
    """The two source pixels of each target pixel, and their weights, as OpenCV's ``INTER_LINEAR`` on bytes has them.

    Args:
        source, target: sizes of an axis [px].
        clamp: at the ends all weight goes to the pixel at the end (OpenCV's columns); otherwise the weights stay as
            they are, and both go to that pixel (its lines).

    Returns:
        (target, 4) int32: first and second pixel, first and second weight.
    """
    scale = 1.0 / (target / source)
    position = ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(position).astype(np.int64)
    fraction = position - first.astype(np.float32)
    if clamp:
        outside = (first < 0) | (first >= source - 1)
        fraction[outside] = 0.0
        first = np.clip(first, 0, source - 1)
    weights = np.rint(np.stack([np.float32(1) - fraction, fraction], axis=1) * np.float32(_WEIGHT))
    pixels = np.clip(np.stack([first, first + 1], axis=1), 0, source - 1)
    return np.concatenate([pixels, weights.astype(np.int64)], axis=1).astype(np.int32)


@dataclass(frozen=True)
class DeviceAnswer:
    """What one request gave.

    Attributes:
        outputs: the component's outputs by name, copied to the host when somebody looks at them.
        picks: (K,) rows that score high enough, in order; values: (K, 5 + C) float32, what they hold.
        rows_nan: rows that hold a NaN.
        placement: where the image lies in the input.
        latency_ms: time on the device by stage, and wall time so far as ``total``.
    """

    outputs: Mapping[str, npt.NDArray[Any]]
    picks: Int32
    values: npt.NDArray[np.float32]
    rows_nan: int
    placement: Placement
    latency_ms: dict[str, float]


@dataclass(frozen=True)
class _Size:
    """Device memory for images of one size, and where they go."""

    image: DeviceArray
    columns: DeviceArray
    lines: DeviceArray
    placement: Placement
    scaled: tuple[int, int]


class YoloxCuda:
    """Buffers, kernels, and the session's component bound to them. A request at a time."""

    def __init__(
        self, spec: ModelSpec, parameters: YoloxParameters, letterbox: Letterbox, session: DeviceSession
    ) -> None:
        component = spec.components[0]
        name = component.inputs[0].name
        self._letterbox, self._parameters = letterbox, parameters
        self._component = component.name
        self._gpu = gpu = session.gpu
        types = {"float32": "float", "float16": "unsigned short"}
        dtype = session.dtype(component.name, name)
        self._selects = parameters.output != "detections"
        self._output = component.outputs[0].name
        output = session.dtype(component.name, self._output).name if self._selects else "float32"
        self._lane = session.open_lane()
        self._stream = self._lane.stream
        self._kernels = self._gpu.kernels(
            FILES, _SIGNATURES, {"INPUT_T": types[dtype.name], "OUTPUT_T": types[output]}, self._stream
        )
        self._blocks = gpu.multiprocessors * 8
        batch = component.inputs[0].shape[0]
        self._input = gpu.allocate(
            (batch if isinstance(batch, int) else 1, 3, letterbox.height, letterbox.width), dtype
        )
        self._bound = self._lane.bind(component.name, {name: self._input}, {})
        self._rows, self._columns = parameters.rows(), 5 + len(spec.classes)
        self._header = gpu.allocate((HEADER_WORDS,), np.int32)
        self._host_header = gpu.pinned((HEADER_WORDS,), np.int32)
        self._picks = gpu.allocate((self._rows,), np.int32)
        self._values = gpu.allocate((self._rows, self._columns), np.float32)
        expected = min(EXPECTED_ROWS, self._rows)
        self._host_picks = gpu.pinned((expected,), np.int32)
        self._host_values = gpu.pinned((expected, self._columns), np.float32)
        self._norm = self._gpu.upload(_norm(letterbox)) if letterbox.mean is not None else None
        self._sizes: dict[tuple[int, int], _Size] = {}
        self._started = self._gpu.event()
        self._marks = {
            stage: self._gpu.event() for stage in ("upload", "letterbox", self._component, "select", "download")
        }

    def infer(self, image: npt.NDArray[np.uint8]) -> DeviceAnswer:
        """One request.

        Args:
            image: (H, W, 3) uint8, blue, green, red.

        Raises:
            InferenceError: the component failed.
        """
        began = time.perf_counter()
        size = self._size(*image.shape[:2])
        self._started.record(self._stream)
        self._gpu.to_device(image, size.image.address, self._stream)
        self._mark("upload")
        how = self._letterbox
        self._kernels.launch(
            "letterbox", self._blocks, BLOCK,
            size.image, size.columns, size.lines, 0 if self._norm is None else self._norm,
            image.shape[1], *size.scaled, how.width, how.height, how.fill, int(how.rgb), self._input,
        )  # fmt: skip
        self._mark("letterbox")
        self._bound.enqueue()
        self._mark(self._component)
        if self._selects:
            self._select()
        self._mark("select")
        self._gpu.to_host(self._header, self._host_header, self._stream)
        self._gpu.to_host(self._picks, self._host_picks, self._stream)
        self._gpu.to_host(self._values, self._host_values, self._stream)
        self._mark("download")
        self._stream.synchronize()
        picks, values = self._selected(int(self._host_header[PICKED]))
        marks = [self._started, *self._marks.values()]
        latency = {
            stage: before.milliseconds_until(after)
            for stage, (before, after) in zip(self._marks, itertools.pairwise(marks), strict=True)
        }
        latency["total"] = (time.perf_counter() - began) * 1e3
        outputs = DeviceOutputs(self._bound.outputs)
        return DeviceAnswer(outputs, picks, values, int(self._host_header[NOT_NUMBERS]), size.placement, latency)

    def letterboxed(self) -> npt.NDArray[Any]:
        """(B, 3, H, W) what the component was given by the last request, on the host."""
        return self._input.get()

    def _select(self) -> None:
        nms = self._parameters.nms
        self._gpu.fill(self._header, 0, self._stream)
        self._kernels.launch(
            "select_rows", self._blocks, BLOCK,
            self._bound.outputs[self._output], self._rows, self._columns,
            float(np.float32(self._parameters.score_threshold)), int(nms.convention == "mmdet"),
            self._picks, self._values, self._header,
        )  # fmt: skip

    def _selected(self, count: int) -> tuple[Int32, npt.NDArray[np.float32]]:
        """The rows that were picked, in order: threads pick them in none."""
        if count <= len(self._host_picks):
            picks, values = self._host_picks[:count], self._host_values[:count]
        else:
            picks, values = self._picks.first(count).get(), self._values.first(count).get()
        order = np.argsort(picks)
        return picks[order], values[order]

    def _mark(self, stage: str) -> None:
        self._marks[stage].record(self._stream)

    def _size(self, height: int, width: int) -> _Size:
        """Memory for images of a size; that of the size that came first goes when there are too many."""
        found = self._sizes.get((height, width))
        if found is None:
            if len(self._sizes) == SIZES_KEPT:
                self._sizes.pop(next(iter(self._sizes)))
            placement, scaled_width, scaled_height = place(width, height, self._letterbox)
            found = self._sizes[height, width] = _Size(
                image=self._gpu.allocate((height, width, 3), np.uint8),
                columns=self._gpu.upload(neighbors(width, scaled_width, clamp=True)),
                lines=self._gpu.upload(neighbors(height, scaled_height, clamp=False)),
                placement=placement,
                scaled=(scaled_width, scaled_height),
            )
        return found


def _norm(letterbox: Letterbox) -> npt.NDArray[np.float32]:
    """(6,) mean, then deviation."""
    return np.array([*(letterbox.mean or ()), *(letterbox.std or ())], np.float32)


# Arguments of the kernels: P an address, i an int32, f a float32.
_SIGNATURES = {
    "letterbox": "PPPPiiiiiiiP",
    "select_rows": "PiifiPPP",
}
