"""YOLOX on a GPU: letterbox, the network, and the choice of rows as CUDA work on device memory.

image -> upload -> letterbox -> yolox -> select -> nms -> download

Images go to the device as the cameras gave them, and what comes back are the boxes that are left. A request is one
image, or the images of several cameras, which the network takes as one batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from runtime.cuda.gpu import C_TYPES, DeviceArray, DeviceOutputs
from runtime.cuda.session import DeviceSession, recorded
from runtime.cuda.timeline import Timeline
from runtime.models.yolox.decode import decode
from runtime.models.yolox.letterbox import Placement, place
from runtime.models.yolox.parameters import Letterbox, YoloxParameters
from runtime.models.yolox.steps import cells_of_raw, checked, detections, in_pixels_of_the_image, suppressed
from runtime.pipeline import Counters, DevicePipeline, Inference, Interface
from shared.arrays import Float32, Int32, UInt8
from shared.errors import InferenceError, UsageError
from shared.spec import ModelSpec
from shared.tasks.detection2d import Boxes2D

if TYPE_CHECKING:
    from typing_extensions import Self

FILES = tuple(Path(__file__).with_name(name) for name in ("yolox.cu", "nms.cu"))

# The same numbers as in the .cu files.
BLOCK = 256
KEEP_BLOCK = 1024
HEADER_WORDS = 4
PICKED, NOT_NUMBERS, KEPT = 0, 1, 2
BOX_WORDS, DECODED_WORDS, RESULT_WORDS = 5, 6, 7
WORD = 64
COMPARE_BLOCK = 256
# Rows that the kernels suppress; where more score high enough, the host does it.
MOST = 4096

# OpenCV's weights of linear interpolation add up to this.
_WEIGHT = 2048
# Sizes of images whose memory is kept; a vehicle has a few.
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
class Images:
    """Device memory for the images of a request, and where they go; for images of certain sizes.

    Attributes:
        pixels: (H, W, 3) uint8 of each.
        placements: of each.
        views: (images, 6) int64 what the letterbox reads of each, see ``yolox.cu``.
        scales: (images, 4) float32 across and down, and the last column and line.
        tables: what ``views`` points to beside the pixels.
    """

    pixels: tuple[DeviceArray, ...]
    placements: tuple[Placement, ...]
    views: DeviceArray
    scales: DeviceArray
    tables: tuple[DeviceArray, ...]


class ImagesOnDevice(DevicePipeline[YoloxParameters]):
    """A YOLOX whose requests stay on the GPU until the rows that become boxes are known.

    Its parameters are such that `unsupported` says nothing.

    Args:
        interface, spec, parameters, session: see `DevicePipeline`.
        images: how many a request has.

    Attributes:
        more_stages: what a subclass does behind the boxes.

    Raises:
        UsageError: the network does not take so many.
    """

    more_stages: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, interface: Interface, spec: ModelSpec, parameters: YoloxParameters, session: DeviceSession, images: int
    ) -> None:
        super().__init__(interface, spec, parameters, session)
        gpu = session.gpu
        self._images = images
        (component,) = spec.components
        (tensor,) = component.inputs
        self._selects = parameters.output != "detections"
        self._component, self._output = component.name, component.outputs[0].name
        dtype = session.dtype(component.name, tensor.name)
        output_dtype = session.dtype(component.name, self._output).name if self._selects else "float32"
        constants = {"INPUT_T": C_TYPES[dtype.name], "OUTPUT_T": C_TYPES[output_dtype], "MOST": str(MOST)}
        self._kernels = gpu.kernels(FILES, _SIGNATURES, constants, self._stream)
        # As many as the GPU runs at a time, whatever the number of images.
        self._blocks = max(1, gpu.multiprocessors * 8 // images)
        image, fixed = parameters.image, tensor.shape[0]
        most = fixed if isinstance(fixed, int) else session.rows(component.name)[1]
        if most is not None and most < images:
            raise UsageError(
                f"the network takes {most} at a time, not {images}",
                hint=f"export with --set model.options.batch_size={images}; dynamic needs a tensorrt_profile up to it",
            )
        batch = fixed if isinstance(fixed, int) else images
        self._input = gpu.allocate((batch, 3, image.height, image.width), dtype)
        self._bound = self._lane.bind(component.name, {tensor.name: self._input}, {})
        self._rows, self._columns = parameters.rows, int(component.outputs[0].shape[-1])
        self._row_cells = cells_of_raw(parameters)
        self._picks = gpu.allocate((images, self._rows), np.int32)
        self._values = gpu.allocate((images, self._rows, self._columns), np.float32)
        self._cells = None if self._row_cells is None else gpu.upload(self._row_cells)
        self._keys = gpu.allocate((images, MOST), np.uint64)
        self._decoded_picks = gpu.allocate((images, MOST, DECODED_WORDS), np.float32)
        self._boxes = gpu.allocate((images, MOST, BOX_WORDS), np.float32)
        self._order = gpu.allocate((images, MOST), np.int32)
        self._ranked = gpu.allocate((images, MOST, BOX_WORDS), np.float32)
        self._overlaps = gpu.allocate((images, MOST, MOST // WORD), np.uint64)
        wanted = parameters.nms.max_boxes
        self._most = MOST if wanted is None else min(wanted, MOST)
        self._result = gpu.allocate((images * (HEADER_WORDS + self._most * RESULT_WORDS),), np.int32)
        # All that there can be: 115 kB an image are fetched faster than it could be told that there are less.
        self._host_result = gpu.pinned(self._result.shape, np.int32)
        self._headers, self._found = _views(self._host_result, images, self._most)
        # Detections are few: all of a network's own are fetched.
        detected = {} if self._selects else self._bound.outputs
        self._host_detections = {name: gpu.pinned(array.shape, array.dtype) for name, array in detected.items()}
        self._norm = None if image.mean is None else gpu.upload(_norm(image))
        # By the sizes of a request's images: their memory, and what a request launches once they are there.
        self._prepared: dict[tuple[tuple[int, int], ...], tuple[Images, dict[bool, Callable[[], None]]]] = {}
        stages = ("upload", "letterbox", self._component, "select", "nms", "download", *self.more_stages)
        self._timeline = Timeline(gpu, stages)

    def input_shapes(self, data: Any, counters: Counters) -> dict[str, dict[str, tuple[int, ...]]]:  # noqa: ARG002 (any image becomes an input of one size)
        """See `DevicePipeline`."""
        return {self._component: {self._spec.components[0].inputs[0].name: self._input.shape}}

    def enqueue_images(self, images: Sequence[UInt8], *, stages: bool) -> Images:
        """Put a request on the lane's stream; returns what `answers` must know of it.

        Args:
            images: (H, W, 3) uint8, blue, green, red, of each.
            stages: take the time of every stage.
        """
        memory, launch = self._memory(tuple(checked(image).shape[:2] for image in images))
        mark = self._timeline.marker(self._stream, timed=stages)
        if stages:
            self._timeline.started.record(self._stream)
        for image, pixels in zip(images, memory.pixels, strict=True):
            self._staging.to_device(image, pixels.address, self._stream)
        mark("upload")
        launch[stages]()
        return memory

    def answers(self, request: Images, *, stages: bool) -> Inference:
        """Wait for the request; the predictions are a list of each image's, the counters those of all images."""
        self._stream.synchronize()
        outputs = DeviceOutputs(self._bound.outputs)
        began = time.perf_counter()
        counters = {}
        if self._selects:
            headers = self._headers.tolist()
            counters = {
                "candidates": sum(header[PICKED] for header in headers),
                "rows_nan": sum(header[NOT_NUMBERS] for header in headers),
            }
            found = [
                self._boxes_of(number, header[PICKED], header[KEPT], placement)
                for number, (header, placement) in enumerate(zip(headers, request.placements, strict=True))
            ]
        else:
            found = [
                in_pixels_of_the_image(detections(self._host_detections, number), placement)
                for number, placement in enumerate(request.placements)
            ]
        counters["boxes"] = sum(len(boxes) for boxes in found)
        placed = time.perf_counter()
        latency = {**self._timeline.milliseconds(), "place": (placed - began) * 1e3} if stages else {}
        return Inference(found, outputs, latency, counters)

    def _boxes_of(self, number: int, picked: int, kept: int, placement: Placement) -> Boxes2D:
        """What is left in one of the images, in its pixels."""
        if picked > MOST:
            return suppressed(self._candidates(number, picked), placement, self._parameters.nms)
        found = self._found[number]
        return Boxes2D(found.corners[:kept].copy(), found.labels[:kept].copy(), found.scores[:kept].copy())

    def letterboxed(self) -> npt.NDArray[Any]:
        """(B, 3, H, W) what the component was given by the last request, on the host."""
        return self._input.get()

    def _enqueue_body(self, memory: Images, mark: Callable[[str], None]) -> None:
        """Everything from the images on the device to the answer on the host."""
        self._letterbox(memory)
        mark("letterbox")
        self._bound.enqueue()
        mark(self._component)
        self._enqueue_answer(memory, mark)

    def _enqueue_answer(self, memory: Images, mark: Callable[[str], None]) -> None:
        """What follows the network."""
        if self._selects:
            self._select()
        mark("select")
        if self._selects:
            self._suppress(memory)
        mark("nms")
        self._download()
        mark("download")

    def _letterbox(self, memory: Images) -> None:
        settings = self._parameters.image
        self._kernels.launch(
            "letterbox", (self._blocks, self._images), BLOCK,
            memory.views, 0 if self._norm is None else self._norm, settings.width, settings.height, settings.fill,
            int(settings.color == "rgb"), self._input,
        )  # fmt: skip

    def _select(self) -> None:
        parameters = self._parameters
        self._gpu.fill(self._result.first(self._images * HEADER_WORDS), 0, self._stream)
        self._kernels.launch(
            "select_rows", (self._blocks, self._images), BLOCK,
            self._bound.outputs[self._output], self._rows, self._columns,
            float(np.float32(parameters.score_threshold)), int(parameters.inclusive),
            self._picks, self._values, self._result,
        )  # fmt: skip

    def _suppress(self, memory: Images) -> None:
        nms, images = self._parameters.nms, self._images
        whole, extra = nms.convention == "autoware", 1.0 if nms.convention == "megvii" else 0.0
        blocks = -(-MOST // BLOCK)
        self._kernels.launch(
            "decode_picks", (blocks, images), BLOCK,
            self._picks, self._values, 0 if self._cells is None else self._cells, self._rows, self._columns,
            memory.scales, int(whole),
            self._result, self._keys, self._decoded_picks, self._boxes,
        )  # fmt: skip
        self._kernels.launch(
            "rank_picks", (self._blocks, images), BLOCK,
            self._keys, self._boxes, int(not nms.class_agnostic), extra, self._result, self._order, self._ranked,
        )  # fmt: skip
        self._kernels.launch(
            "compare_picks", (self._blocks, images), COMPARE_BLOCK,
            self._ranked, float(np.float32(nms.iou_threshold)), extra, self._result, self._overlaps,
        )  # fmt: skip
        self._kernels.launch(
            "keep_picks", (1, images), KEEP_BLOCK,
            self._overlaps, self._order, self._decoded_picks,
            self._most, self._result,
        )  # fmt: skip

    def _download(self) -> None:
        for name, array in self._host_detections.items():
            self._gpu.to_host(self._bound.outputs[name], array, self._stream)
        if self._selects:
            self._gpu.to_host(self._result, self._host_result, self._stream)

    def _prepare(self, memory: Images) -> None:
        """Called before images of other sizes are; a subclass makes ready what it needs for them."""

    def _candidates(self, number: int, count: int) -> Boxes2D:
        """All rows of an image that score high enough, decoded here in ascending order; threads pick them in any."""
        first, columns = number * self._rows, self._columns
        picks = self._picks.part(first, (count,)).get()
        values = self._values.part(first * columns, (count, columns)).get()
        order = np.argsort(picks)
        row_cells = None if self._row_cells is None else self._row_cells[picks[order]]
        parameters = self._parameters
        return decode(values[order], row_cells, parameters.score_threshold, inclusive=parameters.inclusive)

    def _memory(self, sizes: tuple[tuple[int, int], ...]) -> tuple[Images, dict[bool, Callable[[], None]]]:
        """Memory for images of these heights and widths; what came first goes when there is too much."""
        prepared = self._prepared.get(sizes)
        if prepared is None:
            if len(self._prepared) == SIZES_KEPT:
                self._prepared.pop(next(iter(self._prepared)))
            memory = self._allocated(sizes)
            self._prepare(memory)
            launch = recorded(self._gpu, self._lane, self._timeline, partial(self._enqueue_body, memory))
            prepared = self._prepared[sizes] = memory, launch
        return prepared

    def _allocated(self, sizes: tuple[tuple[int, int], ...]) -> Images:
        pixels, placements, views, tables = [], [], [], []
        for height, width in sizes:
            placement, scaled_width, scaled_height = place(width, height, self._parameters.image)
            image = self._gpu.allocate((height, width, 3), np.uint8)
            columns = self._gpu.upload(neighbors(width, scaled_width, clamp=True))
            lines = self._gpu.upload(neighbors(height, scaled_height, clamp=False))
            views.append([image.address, columns.address, lines.address, width, scaled_width, scaled_height])
            pixels.append(image)
            placements.append(placement)
            tables += [columns, lines]
        scales = np.array(
            [(each.scale_x, each.scale_y, each.width - 1, each.height - 1) for each in placements], np.float32
        )
        return Images(
            tuple(pixels),
            tuple(placements),
            self._gpu.upload(np.array(views, np.int64)),
            self._gpu.upload(scales),
            tuple(tables),
        )


class OneImageOnDevice(ImagesOnDevice):
    """Requests of one image."""

    def __init__(
        self, interface: Interface, spec: ModelSpec, parameters: YoloxParameters, session: DeviceSession
    ) -> None:
        super().__init__(interface, spec, parameters, session, 1)

    def enqueue(self, data: UInt8, *, stages: bool) -> Images:
        """See `DevicePipeline`.

        Args:
            data: (H, W, 3) uint8, blue, green, red.
            stages: take the time of every stage.
        """
        return self.enqueue_images((data,), stages=stages)


class YoloxOnDevice(OneImageOnDevice):
    """Requests of one image, answered by its boxes."""

    def batch(self, size: int) -> YoloxBatchOnDevice:
        """See `DevicePipeline`."""
        return YoloxBatchOnDevice(self.interface, self._spec, self._parameters, self._session, size)

    def answer(self, request: Images, *, stages: bool) -> Inference:
        """See `DevicePipeline`."""
        inference = self.answers(request, stages=stages)
        return replace(inference, predictions=inference.predictions[0])


class YoloxBatchOnDevice(ImagesOnDevice):
    """Requests of several images."""

    def another(self) -> Self:
        """See `DevicePipeline`."""
        return type(self)(self.interface, self._spec, self._parameters, self._session, self._images)

    def enqueue(self, data: Sequence[UInt8], *, stages: bool) -> Images:
        """See `DevicePipeline`.

        Args:
            data: (H, W, 3) uint8, blue, green, red, of each image; their sizes may differ.
            stages: take the time of every stage.
        """
        if len(data) != self._images:
            raise InferenceError(f"the request has {len(data)} images, expected {self._images}")
        return self.enqueue_images(data, stages=stages)

    def answer(self, request: Images, *, stages: bool) -> Inference:
        """See `DevicePipeline`."""
        return self.answers(request, stages=stages)


def _views(result: Int32, images: int, most: int) -> tuple[Int32, list[Boxes2D]]:
    """The headers in a result, (images, HEADER_WORDS), and the places of each image's boxes, see ``nms.cu``."""
    boxes = images * most
    headers, labels, corners, scores = np.split(result, np.cumsum([images * HEADER_WORDS, 2 * boxes, 4 * boxes]))
    places = zip(
        corners.view(np.float32).reshape(images, most, 4),
        labels.view(np.int64).reshape(images, most),
        scores.view(np.float32).reshape(images, most),
        strict=True,
    )
    return headers.reshape(images, HEADER_WORDS), [Boxes2D(*each) for each in places]


def _norm(letterbox: Letterbox) -> Float32:
    """(6,) mean, then deviation."""
    return np.array([*(letterbox.mean or ()), *(letterbox.std or ())], np.float32)


# Arguments of the kernels: P an address, i an int32, f a float32.
_SIGNATURES = {
    "letterbox": "PPiiiiP",
    "select_rows": "PiifiPPP",
    "decode_picks": "PPPiiPiPPPP",
    "rank_picks": "PPifPPP",
    "compare_picks": "PffPP",
    "keep_picks": "PPPiP",
}
