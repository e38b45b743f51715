"""Calibration status on a GPU: the steps of `runtime.models.calibration.steps`, as CUDA kernels on device memory.

points -> upload -> project -> choose -> paint -> fuse (undistort, / 255) -> end2end -> download
image  -> upload ---------------------------------^

The image goes to the device as the camera gave it (16 MB at 5 megapixels; the five channels have 107), while the
points are projected. Maps of the undistortion stay there, a set a camera; buffers, the component's bindings and CUDA
graphs stay for every size of image. What differs from request to request lies in device memory, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from runtime.cuda.gpu import C_TYPES, DeviceArray
from runtime.cuda.session import Bound, DeviceSession, recorded
from runtime.cuda.timeline import Timeline
from runtime.models.calibration.parameters import CHANNELS, POINT_COLUMNS, CalibrationParameters
from runtime.models.calibration.steps import (
    CAMERAS_KEPT,
    CameraView,
    UndistortionMaps,
    checked,
    decided,
    decisions,
    seen,
)
from runtime.models.calibration.undistort import UndistortionMap
from runtime.pipeline import Counters, DevicePipeline, Inference, Interface
from shared.spec import ModelSpec

if TYPE_CHECKING:
    from typing_extensions import Self

FILES = (Path(__file__).with_name("calibration.cu"),)

# The same numbers as in calibration.cu.
BLOCK = 256
HEADER_WORDS = 2
SEEN, PAINTED = 0, 1
REQUEST = np.dtype(
    [
        ("lidar2cam", np.float64, 12),
        ("camera", np.float64, 4),
        ("source", np.uint64),
        ("fraction", np.uint64),
        ("count", np.int32),
        ("columns", np.int32),
    ]
)

# Frames of up to so many points fit without a new buffer: twice what the largest lidar set-ups give.
POINT_CAPACITY = 1 << 19
# Sizes of images that are kept; a vehicle has a few.
SIZES_KEPT = 4

_UNUSED = 0xFFFFFFFF


@dataclass(frozen=True)
class _Memory:
    """Device memory for images of one size, and the component bound to it."""

    image: DeviceArray
    nearest: DeviceArray
    latest: DeviceArray
    fused: DeviceArray
    bound: Bound
    host_outputs: dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class _Size:
    """What a request of one size of image launches, by whether stages are timed.

    Attributes:
        memory: where.
        points: finds the point that each pixel shows, and paints them.
        rest: comes behind that and behind the image.
    """

    memory: _Memory
    points: dict[bool, Callable[[], None]]
    rest: dict[bool, Callable[[], None]]


@dataclass(frozen=True)
class _Request:
    """A request on its way: points of its frame, and the memory of its size of image."""

    points: int
    size: _Size


@dataclass(frozen=True)
class _Maps:
    """The map of one camera on the device; the host's is kept, so that no other map gets its id."""

    host: UndistortionMap
    source: DeviceArray
    fraction: DeviceArray


class CalibrationOnDevice(DevicePipeline[CalibrationParameters]):
    """A calibration status model whose steps are CUDA kernels."""

    def __init__(
        self, interface: Interface, spec: ModelSpec, parameters: CalibrationParameters, session: DeviceSession
    ) -> None:
        super().__init__(interface, spec, parameters, session)
        gpu = session.gpu
        (component,) = spec.components
        (tensor,) = component.inputs
        self._component, self._input, self._output = component.name, tensor, component.outputs[0].name
        self._dtype = session.dtype(component.name, tensor.name)
        self._kernels = gpu.kernels(FILES, _SIGNATURES, {"INPUT_T": C_TYPES[self._dtype.name]}, self._stream)
        self._blocks = gpu.multiprocessors * 8
        self._request = gpu.allocate((REQUEST.itemsize,), np.uint8)
        self._host_request = gpu.pinned((REQUEST.itemsize,), np.uint8)
        self._fields = self._host_request.view(REQUEST)
        self._header = gpu.allocate((HEADER_WORDS,), np.int32)
        self._host_header = gpu.pinned((HEADER_WORDS,), np.int32)
        self._sizes: dict[tuple[int, int], _Size] = {}
        self._grow(POINT_CAPACITY * POINT_COLUMNS)
        self._host_maps = UndistortionMaps(parameters)
        self._maps: dict[int, _Maps] = {}
        # Copies of images run beside the points' kernels.
        self._copies = gpu.stream()
        self._timeline = Timeline(
            gpu, ("upload", "project", "choose", "paint", "image", "fuse", self._component, "download")
        )
        self._uploaded = gpu.event()

    def another(self) -> Self:
        """See `DevicePipeline`; where pixels come from is computed once for all lanes."""
        lane = super().another()
        lane._host_maps = self._host_maps
        return lane

    def input_shapes(self, data: CameraView, counters: Counters) -> dict[str, dict[str, tuple[int, ...]]]:  # noqa: ARG002 (the image alone decides)
        """See `DevicePipeline`."""
        return {self._component: {self._input.name: (1, CHANNELS, *data.image.shape[:2])}}

    def enqueue(self, data: CameraView, *, stages: bool) -> _Request:
        """See `DevicePipeline`."""
        view = checked(data, self._input.shape)
        mapping = self._host_maps.of(view)
        if view.points.size > self._points.shape[0]:
            self._grow(2 * view.points.size)
        size = self._size(*view.image.shape[:2])
        mark = self._timeline.marker(self._stream, timed=stages)
        if stages:
            self._timeline.started.record(self._stream)
        # The points first: the device works on them while the image is on its way, which takes longer than that. Where
        # it fetches the image by itself, it is told to before it is told what to do with the points.
        self._upload_request(view, mapping)
        mark("upload")
        fetched = self._gpu.is_page_locked(view.image)
        if fetched:
            self._upload_image(view, size)
        size.points[stages]()
        if not fetched:
            self._upload_image(view, size)
        self._uploaded.record(self._copies)
        self._uploaded.hold(self._stream)
        mark("image")
        size.rest[stages]()
        return _Request(len(view.points), size)

    def answer(self, request: _Request, *, stages: bool) -> Inference:
        """See `DevicePipeline`."""
        self._stream.synchronize()
        outputs = {name: array.copy() for name, array in request.size.memory.host_outputs.items()}
        scores = decided(outputs[self._output], self._parameters)
        counters = {
            "points": request.points,
            **seen(int(self._host_header[SEEN])),
            "pixels_painted": int(self._host_header[PAINTED]),
            **decisions(scores),
        }
        return Inference(scores, outputs, self._timeline.milliseconds() if stages else {}, counters)

    def fused(self, height: int, width: int) -> npt.NDArray[Any]:
        """(1, 5, H, W) what the component was given by the last request of this size, on the host."""
        return self._sizes[height, width].memory.fused.get()

    def _upload_image(self, view: CameraView, size: _Size) -> None:
        """Copy the image to the device, beside what it does for the points."""
        self._staging.to_device(view.image, size.memory.image.address, self._copies)

    def _upload_request(self, view: CameraView, mapping: UndistortionMap) -> None:
        """Copy the points, and what else a request is made of, to the device."""
        points = np.ascontiguousarray(view.points, np.float32)
        if len(points):
            self._staging.to_device(points, self._points.address, self._stream)
        matrix, maps, fields = mapping.intrinsics, self._maps_of(mapping), self._fields
        fields["lidar2cam"] = view.lidar2cam[:3].reshape(-1)
        fields["camera"] = (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
        fields["source"], fields["fraction"] = (0, 0) if maps is None else (maps.source.address, maps.fraction.address)
        fields["count"], fields["columns"] = points.shape
        self._gpu.to_device(self._host_request, self._request.address, self._stream)

    def _enqueue_points(self, memory: _Memory, mark: Callable[[str], None]) -> None:
        """Which point each pixel shows, and the channels that show them."""
        height, width = memory.image.shape[:2]
        depth, reach = self._parameters.max_depth, self._parameters.dilation_size
        self._gpu.fill(memory.nearest, _UNUSED, self._stream)
        self._gpu.fill(memory.latest, _UNUSED, self._stream)
        self._gpu.fill(self._header, 0, self._stream)
        self._kernels.launch(
            "project_points", self._blocks, BLOCK,
            self._request, self._points, height, width, depth, reach,
            self._cells, self._depths, memory.nearest, self._header,
        )  # fmt: skip
        mark("project")
        self._kernels.launch(
            "choose_points", self._blocks, BLOCK,
            self._request, height, width, reach, self._cells, self._depths, memory.nearest, memory.latest,
        )  # fmt: skip
        mark("choose")
        self._kernels.launch(
            "paint_points", self._blocks, BLOCK,
            self._request, self._points, self._depths, memory.latest, height, width, depth, memory.fused, self._header,
        )  # fmt: skip
        mark("paint")

    def _enqueue_rest(self, memory: _Memory, mark: Callable[[str], None]) -> None:
        """From the image to the answer on the host."""
        height, width = memory.image.shape[:2]
        self._kernels.launch(
            "fuse_image", self._blocks, BLOCK, self._request, memory.image, height, width, memory.fused
        )
        mark("fuse")
        memory.bound.enqueue()
        mark(self._component)
        for name, array in memory.bound.outputs.items():
            self._gpu.to_host(array, memory.host_outputs[name], self._stream)
        self._gpu.to_host(self._header, self._host_header, self._stream)
        mark("download")

    def _grow(self, values: int) -> None:
        """Make room for frames of so many values; what was recorded has the addresses of the room before."""
        rows = values // POINT_COLUMNS
        # All of it, or none: a GPU that is full leaves what was there before.
        points, cells = self._gpu.allocate((values,), np.float32), self._gpu.allocate((rows,), np.int32)
        depths = self._gpu.allocate((rows,), np.float64)
        self._sizes.clear()
        self._points, self._cells, self._depths = points, cells, depths

    def _size(self, height: int, width: int) -> _Size:
        """Memory for images of a size; that of the size that came first goes when there are too many."""
        if (height, width) not in self._sizes:
            if len(self._sizes) == SIZES_KEPT:
                self._sizes.pop(next(iter(self._sizes)))
            self._sizes[height, width] = self._new_size(height, width)
        return self._sizes[height, width]

    def _new_size(self, height: int, width: int) -> _Size:
        gpu = self._gpu
        fused = gpu.allocate((1, CHANNELS, height, width), self._dtype)
        bound = self._lane.bind(self._component, {self._input.name: fused}, {})
        memory = _Memory(
            image=gpu.allocate((height, width, 3), np.uint8),
            nearest=gpu.allocate((height * width,), np.uint64),
            latest=gpu.allocate((height * width,), np.uint32),
            fused=fused,
            bound=bound,
            host_outputs={name: gpu.pinned(array.shape, array.dtype) for name, array in bound.outputs.items()},
        )
        # Recording begins with a run: without points, and without the map of another size that is there from before.
        gpu.fill(self._request, 0, self._stream)
        points = recorded(gpu, self._lane, self._timeline, partial(self._enqueue_points, memory))
        return _Size(memory, points, recorded(gpu, self._lane, self._timeline, partial(self._enqueue_rest, memory)))

    def _maps_of(self, mapping: UndistortionMap) -> _Maps | None:
        """The map of a camera on the device; None where there is no distortion."""
        if mapping.source is None or mapping.fraction is None:
            return None
        key = id(mapping)
        if key not in self._maps:
            if len(self._maps) == CAMERAS_KEPT:
                self._maps.pop(next(iter(self._maps)))
            self._maps[key] = _Maps(mapping, self._gpu.upload(mapping.source), self._gpu.upload(mapping.fraction))
        return self._maps[key]


# Arguments of the kernels: P an address, i an int32, d a float64.
_SIGNATURES = {
    "project_points": "PPiidiPPPP",
    "choose_points": "PiiiPPPP",
    "paint_points": "PPPPiidPP",
    "fuse_image": "PPiiP",
}
