"""Calibration status on a GPU: the steps of `runtime.models.calibration.pipeline`, as CUDA kernels on device memory.

image, points -> upload -> project -> choose -> fuse (undistort, paint, / 255) -> end2end -> download

The image goes to the device as the camera gave it, 16 MB at 5 megapixels, where the five channels have 107 MB. Maps of
the undistortion stay there, a set a camera; buffers and the component's bindings stay for every size of image.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.cuda.gpu import DeviceArray
from runtime.cuda.session import Bound, DeviceSession
from runtime.models.calibration.parameters import CHANNELS, CalibrationParameters
from runtime.models.calibration.undistort import Straightening
from shared.spec import ModelSpec

FILES = (Path(__file__).with_name("calibration.cu"),)

# The same numbers as in calibration.cu.
BLOCK = 256
HEADER_WORDS = 2
CAMERA_VALUES = 16

POINT_COLUMNS = 4
# Frames of up to so many points fit without a new buffer: twice what the largest lidar set-ups give.
POINT_CAPACITY = 1 << 19
# Cameras and sizes of images that are kept; a vehicle has about a dozen of the former and a few of the latter.
CAMERAS_KEPT = 16
SIZES_KEPT = 4

_UNUSED = 0xFFFFFFFF


@dataclass(frozen=True)
class DeviceAnswer:
    """What one request gave.

    Attributes:
        outputs: the component's outputs by name, on the host.
        latency_ms: time on the device by stage, and ``total``: wall time of the request.
        points_seen, pixels_painted: see `runtime.models.calibration.project` and `runtime.models.calibration.paint`.
    """

    outputs: dict[str, npt.NDArray[Any]]
    latency_ms: dict[str, float]
    points_seen: int
    pixels_painted: int


@dataclass(frozen=True)
class _Size:
    """Device memory for images of one size, and the component bound to it."""

    image: DeviceArray
    nearest: DeviceArray
    latest: DeviceArray
    fused: DeviceArray
    bound: Bound
    host_outputs: dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class _Maps:
    """The maps of one camera on the device; ``how`` is kept so that nothing else can come to have its identity."""

    how: Straightening
    source: DeviceArray
    fraction: DeviceArray


class CalibrationCuda:
    """Buffers, kernels, and the session's component bound to them. A request at a time."""

    def __init__(self, spec: ModelSpec, parameters: CalibrationParameters, session: DeviceSession) -> None:
        self._parameters = parameters
        self._session = session
        self._gpu = session.gpu
        self._component = spec.components[0].name
        self._input = spec.components[0].inputs[0].name
        self._dtype = session.dtype(self._component, self._input)
        self._lane = session.open_lane()
        self._stream = self._lane.stream
        macros = {"INPUT_T": {"float32": "float", "float16": "unsigned short"}[self._dtype.name]}
        self._kernels = self._gpu.kernels(FILES, _SIGNATURES, macros, self._stream)
        self._blocks = session.gpu.multiprocessors * 8
        self._camera = session.gpu.allocate((CAMERA_VALUES,), np.float64)
        self._host_camera = session.gpu.pinned((CAMERA_VALUES,), np.float64)
        self._header = session.gpu.allocate((HEADER_WORDS,), np.int32)
        self._host_header = session.gpu.pinned((HEADER_WORDS,), np.int32)
        self._grow(POINT_CAPACITY)
        self._sizes: dict[tuple[int, int], _Size] = {}
        self._maps: dict[int, _Maps] = {}
        self._started = self._gpu.event()
        self._marks = {
            stage: self._gpu.event() for stage in ("upload", "project", "choose", "fuse", self._component, "download")
        }

    def infer(
        self,
        image: npt.NDArray[np.uint8],
        points: npt.NDArray[np.float32],
        lidar2cam: npt.NDArray[np.float64],
        how: Straightening,
    ) -> DeviceAnswer:
        """One request.

        Args:
            image: (H, W, 3) uint8, blue, green, red, as the camera gave it.
            points: (N, >=4) float32; x, y, z [m] in the lidar frame, intensity 0-255.
            lidar2cam: (4, 4).
            how: how the camera's images are undistorted; the same object for the same camera.

        Raises:
            InferenceError: a size that the component does not take, or it failed.
        """
        began = time.perf_counter()
        height, width = image.shape[:2]
        size = self._size(height, width)
        maps = self._maps_of(how)
        if len(points) > self._capacity:
            self._grow(2 * len(points))
        self._started.record(self._stream)
        self._upload(size, image, points, lidar2cam, how)
        self._mark("upload")
        self._enqueue_steps(size, maps, len(points), height, width)
        size.bound.enqueue()
        self._mark(self._component)
        for name, array in size.bound.outputs.items():
            self._gpu.to_host(array, size.host_outputs[name], self._stream)
        self._gpu.to_host(self._header, self._host_header, self._stream)
        self._mark("download")
        self._stream.synchronize()
        marks = [self._started, *self._marks.values()]
        latency = {
            stage: before.milliseconds_until(after)
            for stage, (before, after) in zip(self._marks, itertools.pairwise(marks), strict=True)
        }
        latency["total"] = (time.perf_counter() - began) * 1e3
        outputs = {name: array.copy() for name, array in size.host_outputs.items()}
        return DeviceAnswer(outputs, latency, int(self._host_header[0]), int(self._host_header[1]))

    def fused(self, height: int, width: int) -> npt.NDArray[Any]:
        """(1, 5, H, W) what the component was given by the last request of this size, on the host."""
        return self._sizes[height, width].fused.get()

    def _upload(
        self,
        size: _Size,
        image: npt.NDArray[np.uint8],
        points: npt.NDArray[np.float32],
        lidar2cam: npt.NDArray[np.float64],
        how: Straightening,
    ) -> None:
        """To the device; the driver stages it, which is faster than to stage it here."""
        self._gpu.to_device(image, size.image.address, self._stream)
        if len(points):
            columns = np.ascontiguousarray(points[:, :POINT_COLUMNS])
            self._gpu.to_device(columns, self._points.address, self._stream)
        matrix = how.intrinsics
        self._host_camera[:12] = lidar2cam[:3].reshape(-1)
        self._host_camera[12:] = (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
        self._gpu.to_device(self._host_camera, self._camera.address, self._stream)

    def _enqueue_steps(self, size: _Size, maps: _Maps | None, count: int, height: int, width: int) -> None:
        """From what was uploaded to the component's input."""
        depth, reach = self._parameters.max_depth, self._parameters.dilation_size
        self._gpu.fill(size.nearest, _UNUSED, self._stream)
        self._gpu.fill(size.latest, _UNUSED, self._stream)
        self._gpu.fill(self._header, 0, self._stream)
        self._kernels.launch(
            "project_points", self._blocks, BLOCK,
            self._points, self._camera, count, height, width, depth, reach,
            self._cells, self._depths, size.nearest, self._header,
        )  # fmt: skip
        self._mark("project")
        self._kernels.launch(
            "choose_points", self._blocks, BLOCK,
            count, height, width, reach, self._cells, self._depths, size.nearest, size.latest,
        )  # fmt: skip
        self._mark("choose")
        self._kernels.launch(
            "fuse_channels", self._blocks, BLOCK,
            size.image, 0 if maps is None else maps.source, 0 if maps is None else maps.fraction,
            self._points, self._depths, size.latest, height, width, depth, size.fused, self._header,
        )  # fmt: skip
        self._mark("fuse")

    def _mark(self, stage: str) -> None:
        self._marks[stage].record(self._stream)

    def _grow(self, points: int) -> None:
        """Make room for frames of so many points."""
        self._capacity = points
        self._points = self._gpu.allocate((points, POINT_COLUMNS), np.float32)
        self._cells = self._gpu.allocate((points,), np.int32)
        self._depths = self._gpu.allocate((points,), np.float64)

    def _size(self, height: int, width: int) -> _Size:
        """Memory for images of a size; that of the size that came first goes when there are too many."""
        found = self._sizes.get((height, width))
        if found is None:
            if len(self._sizes) == SIZES_KEPT:
                self._sizes.pop(next(iter(self._sizes)))
            found = self._sizes[height, width] = self._new_size(height, width)
        return found

    def _new_size(self, height: int, width: int) -> _Size:
        gpu = self._gpu
        fused = gpu.allocate((1, CHANNELS, height, width), self._dtype)
        bound = self._lane.bind(self._component, {self._input: fused}, {})
        return _Size(
            image=gpu.allocate((height, width, 3), np.uint8),
            nearest=gpu.allocate((height * width,), np.uint64),
            latest=gpu.allocate((height * width,), np.uint32),
            fused=fused,
            bound=bound,
            host_outputs={name: gpu.pinned(array.shape, array.dtype) for name, array in bound.outputs.items()},
        )

    def _maps_of(self, how: Straightening) -> _Maps | None:
        if how.source is None or how.fraction is None:
            return None
        found = self._maps.get(id(how))
        if found is None:
            if len(self._maps) == CAMERAS_KEPT:
                self._maps.pop(next(iter(self._maps)))
            found = _Maps(how, self._gpu.upload(how.source), self._gpu.upload(how.fraction))
            self._maps[id(how)] = found
        return found


# Arguments of the kernels: P an address, i an int32, d a float64.
_SIGNATURES = {
    "project_points": "PPiiidiPPPP",
    "choose_points": "iiiiPPPP",
    "fuse_channels": "PPPPPPiidPP",
}
