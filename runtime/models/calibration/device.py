"""Calibration status on a GPU: the steps of `runtime.models.calibration.steps`, as CUDA kernels on device memory.

points -> upload -> project -> choose -> fuse (undistort, paint, / 255) -> end2end -> download
image  -> upload ------------------------^

The image goes to the device as the camera gave it (16 MB at 5 megapixels; the five channels have 107), while the
points are projected. Maps of the undistortion stay there, a set a camera; buffers and the component's bindings stay for
every size of image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
CAMERA_VALUES = 16
SEEN, PAINTED = 0, 1

# Frames of up to so many points fit without a new buffer: twice what the largest lidar set-ups give.
POINT_CAPACITY = 1 << 19
# Sizes of images that are kept; a vehicle has a few.
SIZES_KEPT = 4

_UNUSED = 0xFFFFFFFF


@dataclass(frozen=True)
class _Size:
    """Device memory for images of one size, and the component bound to it."""

    image: DeviceArray
    nearest: DeviceArray
    latest: DeviceArray
    fused: DeviceArray
    bound: Bound
    run: Callable[[], None]
    host_outputs: dict[str, npt.NDArray[Any]]


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
        self._camera = gpu.allocate((CAMERA_VALUES,), np.float64)
        self._host_camera = gpu.pinned((CAMERA_VALUES,), np.float64)
        self._header = gpu.allocate((HEADER_WORDS,), np.int32)
        self._host_header = gpu.pinned((HEADER_WORDS,), np.int32)
        self._grow(POINT_CAPACITY)
        self._sizes: dict[tuple[int, int], _Size] = {}
        self._host_maps = UndistortionMaps(parameters)
        self._maps: dict[int, _Maps] = {}
        # Copies of images run beside the points' kernels.
        self._copies = gpu.stream()
        self._timeline = Timeline(gpu, ("upload", "project", "choose", "image", "fuse", self._component, "download"))
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
        size = self._size(*view.image.shape[:2])
        mapping = self._host_maps.of(view)
        maps = self._maps_of(mapping)
        if len(view.points) > self._capacity:
            self._grow(2 * len(view.points))
        mark = self._timeline.marker(self._stream, timed=stages)
        if stages:
            self._timeline.started.record(self._stream)
        self._upload_points(view, mapping)
        mark("upload")
        self._enqueue_points(size, len(view.points), mark)
        self._upload_image(size, view)
        mark("image")
        self._enqueue_fusion(size, maps)
        mark("fuse")
        size.run()
        mark(self._component)
        for name, array in size.bound.outputs.items():
            self._gpu.to_host(array, size.host_outputs[name], self._stream)
        self._gpu.to_host(self._header, self._host_header, self._stream)
        mark("download")
        return _Request(len(view.points), size)

    def answer(self, request: _Request, *, stages: bool) -> Inference:
        """See `DevicePipeline`."""
        self._stream.synchronize()
        outputs = {name: array.copy() for name, array in request.size.host_outputs.items()}
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
        return self._sizes[height, width].fused.get()

    def _upload_image(self, size: _Size, view: CameraView) -> None:
        """Copy the image beside what the device does for the points; what comes next waits for it."""
        self._staging.to_device(view.image, size.image.address, self._copies)
        self._uploaded.record(self._copies)
        self._uploaded.hold(self._stream)

    def _upload_points(self, view: CameraView, mapping: UndistortionMap) -> None:
        """Copy the points and the camera's matrices to the device."""
        if len(view.points):
            self._staging.to_device(view.points[:, :POINT_COLUMNS], self._points.address, self._stream)
        matrix = mapping.intrinsics
        self._host_camera[:12] = view.lidar2cam[:3].reshape(-1)
        self._host_camera[12:] = (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
        self._gpu.to_device(self._host_camera, self._camera.address, self._stream)

    def _enqueue_points(self, size: _Size, count: int, mark: Callable[[str], None]) -> None:
        """Which point each pixel shows."""
        height, width = size.image.shape[:2]
        depth, reach = self._parameters.max_depth, self._parameters.dilation_size
        self._gpu.fill(size.nearest, _UNUSED, self._stream)
        self._gpu.fill(size.latest, _UNUSED, self._stream)
        self._gpu.fill(self._header, 0, self._stream)
        self._kernels.launch(
            "project_points", self._blocks, BLOCK,
            self._points, self._camera, count, height, width, depth, reach,
            self._cells, self._depths, size.nearest, self._header,
        )  # fmt: skip
        mark("project")
        self._kernels.launch(
            "choose_points", self._blocks, BLOCK,
            count, height, width, reach, self._cells, self._depths, size.nearest, size.latest,
        )  # fmt: skip
        mark("choose")

    def _enqueue_fusion(self, size: _Size, maps: _Maps | None) -> None:
        """From the image and the points at its pixels to the component's input."""
        height, width = size.image.shape[:2]
        self._kernels.launch(
            "fuse_channels", self._blocks, BLOCK,
            size.image, 0 if maps is None else maps.source, 0 if maps is None else maps.fraction,
            self._points, self._depths, size.latest, height, width, self._parameters.max_depth, size.fused,
            self._header,
        )  # fmt: skip

    def _grow(self, points: int) -> None:
        """Make room for frames of so many points."""
        self._capacity = points
        self._points = self._gpu.allocate((points, POINT_COLUMNS), np.float32)
        self._cells = self._gpu.allocate((points,), np.int32)
        self._depths = self._gpu.allocate((points,), np.float64)

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
        return _Size(
            image=gpu.allocate((height, width, 3), np.uint8),
            nearest=gpu.allocate((height * width,), np.uint64),
            latest=gpu.allocate((height * width,), np.uint32),
            fused=fused,
            bound=bound,
            run=recorded(gpu, self._lane, bound),
            host_outputs={name: gpu.pinned(array.shape, array.dtype) for name, array in bound.outputs.items()},
        )

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
    "project_points": "PPiiidiPPPP",
    "choose_points": "iiiiPPPP",
    "fuse_channels": "PPPPPPiidPP",
}
