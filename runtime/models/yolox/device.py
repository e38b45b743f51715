"""YOLOX on a GPU: letterbox, the network, and the choice of rows as CUDA work on device memory.

image -> upload -> letterbox -> yolox -> select -> nms -> download

The image goes to the device as the camera gave it, and what comes back are the boxes that are left, in pixels of the
network's input.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from runtime.cuda.gpu import C_TYPES, DeviceArray, DeviceOutputs
from runtime.cuda.session import DeviceSession, recorded
from runtime.cuda.timeline import Timeline
from runtime.models.yolox.decode import decode
from runtime.models.yolox.letterbox import Placement, place
from runtime.models.yolox.parameters import Letterbox, YoloxParameters
from runtime.models.yolox.steps import cells_of_raw, checked, detections, finished, in_pixels_of_the_image, suppressed
from runtime.pipeline import Counters, DevicePipeline, Inference, Interface
from shared.arrays import Float32, Int32, UInt8
from shared.spec import ModelSpec
from shared.tasks.detection2d import Boxes2D

FILES = tuple(Path(__file__).with_name(name) for name in ("yolox.cu", "nms.cu"))

# The same numbers as in the .cu files.
BLOCK = 256
KEEP_BLOCK = 1024
HEADER_WORDS = 4
PICKED, NOT_NUMBERS, KEPT = 0, 1, 2
BOX_WORDS, DECODED_WORDS = 5, 6
WORD = 64
# Rows that the kernels suppress; where more score high enough, the host does it.
MOST = 4096

# OpenCV's weights of linear interpolation add up to this.
_WEIGHT = 2048
# Sizes of images that are kept; a vehicle has a few.
SIZES_KEPT = 8


def unsupported(parameters: YoloxParameters) -> str | None:
    """Why the kernels can't serve a model; None when they can."""
    if parameters.image.convention.cubic:
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
class _Size:
    """Device memory for images of one size, where they go, and what a request launches once its image is there.

    ``launch`` goes by whether stages are timed.
    """

    image: DeviceArray
    columns: DeviceArray
    lines: DeviceArray
    placement: Placement
    launch: dict[bool, Callable[[], None]]


class YoloxOnDevice(DevicePipeline[YoloxParameters]):
    """A YOLOX whose requests stay on the GPU until the rows that become boxes are known.

    Its parameters are such that `unsupported` says nothing.

    Attributes:
        more_stages: what a subclass does behind the boxes.
    """

    more_stages: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, interface: Interface, spec: ModelSpec, parameters: YoloxParameters, session: DeviceSession
    ) -> None:
        super().__init__(interface, spec, parameters, session)
        gpu = session.gpu
        (component,) = spec.components
        (tensor,) = component.inputs
        self._selects = parameters.output != "detections"
        self._component, self._output = component.name, component.outputs[0].name
        dtype = session.dtype(component.name, tensor.name)
        output_dtype = session.dtype(component.name, self._output).name if self._selects else "float32"
        constants = {"INPUT_T": C_TYPES[dtype.name], "OUTPUT_T": C_TYPES[output_dtype], "MOST": str(MOST)}
        self._kernels = gpu.kernels(FILES, _SIGNATURES, constants, self._stream)
        self._blocks = gpu.multiprocessors * 8
        batch = tensor.shape[0]
        image = parameters.image
        self._input = gpu.allocate((batch if isinstance(batch, int) else 1, 3, image.height, image.width), dtype)
        self._bound = self._lane.bind(component.name, {tensor.name: self._input}, {})
        self._rows, self._columns = parameters.rows, int(component.outputs[0].shape[-1])
        self._row_cells = cells_of_raw(parameters)
        self._picks = gpu.allocate((self._rows,), np.int32)
        self._values = gpu.allocate((self._rows, self._columns), np.float32)
        self._cells = None if self._row_cells is None else gpu.upload(self._row_cells)
        self._keys = gpu.allocate((MOST,), np.uint64)
        self._decoded_picks = gpu.allocate((MOST, DECODED_WORDS), np.float32)
        self._boxes = gpu.allocate((MOST, BOX_WORDS), np.float32)
        self._order = gpu.allocate((MOST,), np.int32)
        self._ranked = gpu.allocate((MOST, BOX_WORDS), np.float32)
        self._overlaps = gpu.allocate((MOST, MOST // WORD), np.uint64)
        most = parameters.nms.max_boxes
        self._most = MOST if most is None else min(most, MOST)
        self._result = gpu.allocate((HEADER_WORDS + MOST * DECODED_WORDS,), np.int32)
        # All that there can be: 98 kB are fetched faster than it could be told that there are less.
        self._host_result = gpu.pinned((HEADER_WORDS + self._most * DECODED_WORDS,), np.int32)
        # Detections are few: all of a network's own are fetched.
        detected = {} if self._selects else self._bound.outputs
        self._host_detections = {name: gpu.pinned(array.shape, array.dtype) for name, array in detected.items()}
        self._norm = None if image.mean is None else gpu.upload(_norm(image))
        self._sizes: dict[tuple[int, int], _Size] = {}
        stages = ("upload", "letterbox", self._component, "select", "nms", "download", *self.more_stages)
        self._timeline = Timeline(gpu, stages)

    def input_shapes(self, data: UInt8, counters: Counters) -> dict[str, dict[str, tuple[int, ...]]]:  # noqa: ARG002 (any image becomes an input of one size)
        """See `DevicePipeline`."""
        return {self._component: {self._spec.components[0].inputs[0].name: self._input.shape}}

    def enqueue(self, data: UInt8, *, stages: bool) -> Placement:
        """See `DevicePipeline`.

        Args:
            data: (H, W, 3) uint8, blue, green, red.
            stages: take the time of every stage.
        """
        image = checked(data)
        size = self._size(*image.shape[:2])
        mark = self._timeline.marker(self._stream, timed=stages)
        if stages:
            self._timeline.started.record(self._stream)
        self._staging.to_device(image, size.image.address, self._stream)
        mark("upload")
        size.launch[stages]()
        return size.placement

    def answer(self, request: Placement, *, stages: bool) -> Inference:
        """See `DevicePipeline`."""
        self._stream.synchronize()
        outputs = DeviceOutputs(self._bound.outputs)
        began = time.perf_counter()
        if self._selects:
            boxes, counters = self._decoded(request)
        else:
            boxes = in_pixels_of_the_image(detections(self._host_detections), request)
            counters = {}
        counters["boxes"] = len(boxes)
        latency = self._timeline.milliseconds() if stages else {}
        if stages:
            latency["place"] = (time.perf_counter() - began) * 1e3
        return Inference(boxes, outputs, latency, counters)

    def _decoded(self, placement: Placement) -> tuple[Boxes2D, dict[str, int]]:
        """The boxes, and how many rows scored high enough."""
        header, nms = self._host_result[:HEADER_WORDS], self._parameters.nms
        picked = int(header[PICKED])
        if picked <= MOST:
            boxes = finished(self._kept(int(header[KEPT])), placement, nms)
        else:
            boxes = suppressed(self._candidates(picked), placement, nms)
        return boxes, {"candidates": picked, "rows_nan": int(header[NOT_NUMBERS])}

    def letterboxed(self) -> npt.NDArray[Any]:
        """(B, 3, H, W) what the component was given by the last request, on the host."""
        return self._input.get()

    def _enqueue_body(
        self,
        image: DeviceArray,
        columns: DeviceArray,
        lines: DeviceArray,
        placement: Placement,
        mark: Callable[[str], None],
    ) -> None:
        """Everything from the image on the device to the answer on the host."""
        self._letterbox(image, columns, lines)
        mark("letterbox")
        self._bound.enqueue()
        mark(self._component)
        if self._selects:
            self._select()
        mark("select")
        if self._selects:
            self._suppress(placement)
        mark("nms")
        self._download()
        mark("download")

    def _letterbox(self, image: DeviceArray, columns: DeviceArray, lines: DeviceArray) -> None:
        settings = self._parameters.image
        self._kernels.launch(
            "letterbox", self._blocks, BLOCK,
            image, columns, lines, 0 if self._norm is None else self._norm,
            image.shape[1], columns.shape[0], lines.shape[0], settings.width, settings.height, settings.fill,
            int(settings.color == "rgb"), self._input,
        )  # fmt: skip

    def _select(self) -> None:
        parameters = self._parameters
        self._gpu.fill(self._result.first(HEADER_WORDS), 0, self._stream)
        self._kernels.launch(
            "select_rows", self._blocks, BLOCK,
            self._bound.outputs[self._output], self._rows, self._columns,
            float(np.float32(parameters.score_threshold)), int(parameters.inclusive),
            self._picks, self._values, self._result,
        )  # fmt: skip

    def _suppress(self, placement: Placement) -> None:
        nms = self._parameters.nms
        whole, extra = nms.convention == "autoware", 1.0 if nms.convention == "megvii" else 0.0
        blocks = -(-MOST // BLOCK)
        self._kernels.launch(
            "decode_picks", blocks, BLOCK,
            self._picks, self._values, 0 if self._cells is None else self._cells, self._columns,
            float(np.float32(placement.scale_x)), float(np.float32(placement.scale_y)), int(whole),
            self._result, self._keys, self._decoded_picks, self._boxes,
        )  # fmt: skip
        self._kernels.launch(
            "rank_picks", blocks, BLOCK,
            self._keys, self._boxes, int(not nms.class_agnostic), extra, self._result, self._order, self._ranked,
        )  # fmt: skip
        self._kernels.launch(
            "compare_picks", self._blocks, WORD,
            self._ranked, float(np.float32(nms.iou_threshold)), extra, self._result, self._overlaps,
        )  # fmt: skip
        self._kernels.launch(
            "keep_picks", 1, KEEP_BLOCK,
            self._overlaps, self._order, self._decoded_picks,
            self._most, self._result,
        )  # fmt: skip

    def _download(self) -> None:
        for name, array in self._host_detections.items():
            self._gpu.to_host(self._bound.outputs[name], array, self._stream)
        if self._selects:
            self._gpu.to_host(self._result, self._host_result, self._stream)

    def _prepare(self, placement: Placement) -> None:
        """Called before images of another size are; a subclass makes ready what it needs for them."""

    def _kept(self, count: int) -> Boxes2D:
        """The candidates that are left, best first, in pixels of the network's input."""
        words = HEADER_WORDS + count * DECODED_WORDS
        rows = self._host_result[HEADER_WORDS:words].view(np.float32).reshape(count, DECODED_WORDS)
        return Boxes2D(rows[:, :4].copy(), rows[:, 5].astype(np.int64), rows[:, 4].copy())

    def _candidates(self, count: int) -> Boxes2D:
        """All rows that score high enough, decoded here in ascending order; threads pick them in any."""
        picks, values = self._picks.first(count).get(), self._values.first(count).get()
        order = np.argsort(picks)
        row_cells = None if self._row_cells is None else self._row_cells[picks[order]]
        parameters = self._parameters
        return decode(values[order], row_cells, parameters.score_threshold, inclusive=parameters.inclusive)

    def _size(self, height: int, width: int) -> _Size:
        """Memory for images of a size; that of the size that came first goes when there are too many."""
        size = self._sizes.get((height, width))
        if size is None:
            if len(self._sizes) == SIZES_KEPT:
                self._sizes.pop(next(iter(self._sizes)))
            placement, scaled_width, scaled_height = place(width, height, self._parameters.image)
            self._prepare(placement)
            image = self._gpu.allocate((height, width, 3), np.uint8)
            columns = self._gpu.upload(neighbors(width, scaled_width, clamp=True))
            lines = self._gpu.upload(neighbors(height, scaled_height, clamp=False))
            body = partial(self._enqueue_body, image, columns, lines, placement)
            launch = recorded(self._gpu, self._lane, self._timeline, body)
            size = self._sizes[height, width] = _Size(image, columns, lines, placement, launch)
        return size


def _norm(letterbox: Letterbox) -> Float32:
    """(6,) mean, then deviation."""
    return np.array([*(letterbox.mean or ()), *(letterbox.std or ())], np.float32)


# Arguments of the kernels: P an address, i an int32, f a float32.
_SIGNATURES = {
    "letterbox": "PPPPiiiiiiiP",
    "select_rows": "PiifiPPP",
    "decode_picks": "PPPiffiPPPP",
    "rank_picks": "PPifPPP",
    "compare_picks": "PffPP",
    "keep_picks": "PPPiP",
}
