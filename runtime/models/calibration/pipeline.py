"""Calibration status: a camera image and lidar points to "calibrated" or "miscalibrated".

image, points -> undistort -> project -> paint -> fuse -> end2end -> decide

The steps before the component run in NumPy and OpenCV, or, when the session runs components on device memory, as CUDA
kernels (`runtime.models.calibration.device`), with the same results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.backends import Session
from runtime.cuda.session import DeviceSession
from runtime.models.calibration.device import CalibrationCuda
from runtime.models.calibration.paint import paint
from runtime.models.calibration.parameters import CHANNELS, CalibrationParameters, read_parameters
from runtime.models.calibration.project import project
from runtime.models.calibration.undistort import Straightening, straightening, undistort
from runtime.pipeline import Inference, Pipeline, PipelineInput
from runtime.stage_clock import StageClock
from shared.data import read_points
from shared.data.camera_image import read_camera_image
from shared.data.camera_pairs import CameraPair
from shared.errors import InferenceError, InputError
from shared.spec import ModelSpec
from shared.tasks.classification import ClassScores

# A vehicle has about a dozen cameras; their maps are 32 MB each at 8 megapixels.
_CAMERAS_KEPT = 16
_POINT_COLUMNS = 4  # x, y, z, intensity


@dataclass(frozen=True)
class CameraView:
    """What one request is made of.

    Attributes:
        image: (H, W, 3) uint8, blue, green, red, distorted as the camera gave it.
        points: (N, >=4) float32; x, y, z [m] in the lidar frame, intensity 0-255.
        intrinsics: (3, 3), pixels.
        distortion: (K,) OpenCV's coefficients, empty for none.
        lidar2cam: (4, 4) the calibration to judge.
    """

    image: npt.NDArray[np.uint8]
    points: npt.NDArray[np.float32]
    intrinsics: npt.NDArray[np.float64]
    distortion: npt.NDArray[np.float64]
    lidar2cam: npt.NDArray[np.float64]


def build(spec: ModelSpec, session: Session) -> Pipeline:
    """The pipeline of a calibration status model, see `runtime.pipeline.build_pipeline`."""
    if isinstance(session, DeviceSession):
        return CalibrationOnDevice(spec, session)
    return Calibration(spec, session)


class _Calibration:
    """What does not depend on where the steps run."""

    def __init__(self, spec: ModelSpec) -> None:
        self._parameters: CalibrationParameters = read_parameters(spec)
        self._output = spec.components[0].outputs[0].name
        self._fixed_shape = spec.components[0].inputs[0].shape
        self._straightenings: dict[tuple[Any, ...], Straightening] = {}

    def read(self, sample: CameraPair) -> PipelineInput:
        """Image, points and calibration of a sample.

        Raises:
            InputError: a file is missing or broken, the image is not in color, or points have no intensity.
        """
        image = read_camera_image(sample.image, sample.camera.width, sample.camera.height)
        points = read_points(sample.lidar)
        if points.shape[1] < _POINT_COLUMNS:
            raise InputError(
                f"points have {points.shape[1]} columns, without an intensity", where=str(sample.lidar.path)
            )
        camera = sample.camera
        invalid = len(points) - int(np.isfinite(points[:, :_POINT_COLUMNS]).all(axis=1).sum())
        if invalid:
            points = points[np.isfinite(points[:, :_POINT_COLUMNS]).all(axis=1)]
        view = CameraView(image, points, camera.intrinsics, camera.distortion, camera.lidar2cam)
        return PipelineInput(view, {"read": len(points) + invalid, "read_nan": invalid})

    def comparable(self, outputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """The logits as they are: (1, 2)."""
        return dict(outputs)

    def alerts(self, counters: Mapping[str, int]) -> list[str]:
        """Samples that nothing can be said about, and results that are none."""
        lines = []
        if counters["without_points"]:
            lines.append(
                f"{counters['without_points']} images show no lidar point: there is nothing to judge their calibration "
                "by (is the lidar's pose right, and are the points those of the same time?)"
            )
        if counters["read_nan"]:
            lines.append(f"{counters['read_nan']} of {counters['read']} points are NaN or infinite and were left out")
        if counters["logit_nan"]:
            lines.append(f"{counters['logit_nan']} logits are NaN; look for an overflow with the verifier")
        return lines

    def _check(self, data: CameraView) -> None:
        if data.image.ndim != 3 or data.image.shape[2] != 3 or data.image.dtype != np.uint8:
            raise InferenceError(
                f"the image has the shape {data.image.shape} of {data.image.dtype}, expected (H, W, 3) of uint8"
            )
        if data.points.ndim != 2 or data.points.shape[1] < _POINT_COLUMNS:
            raise InferenceError(f"points have the shape {data.points.shape}, expected (N, at least {_POINT_COLUMNS})")
        for axis, size in zip((2, 3), data.image.shape[:2], strict=True):
            wanted = self._fixed_shape[axis]
            if isinstance(wanted, int) and wanted != size:
                raise InferenceError(
                    f"the image is {data.image.shape[1]} x {data.image.shape[0]}, the model was exported for a fixed "
                    f"size of {self._fixed_shape[3]} x {self._fixed_shape[2]}",
                    hint="export with dynamic height and width",
                )

    def _straightening(self, data: CameraView) -> Straightening:
        """How the camera's images are undistorted: computed for its first image, kept for the next ones."""
        if not self._parameters.undistort:
            return Straightening(data.intrinsics, None, None)
        height, width = data.image.shape[:2]
        key = (data.intrinsics.tobytes(), data.distortion.tobytes(), height, width)
        if key not in self._straightenings:
            if len(self._straightenings) == _CAMERAS_KEPT:
                self._straightenings.pop(next(iter(self._straightenings)))
            self._straightenings[key] = straightening(data.intrinsics, data.distortion, height, width)
        return self._straightenings[key]

    def _answer(
        self, outputs: Mapping[str, npt.NDArray[Any]], points: int, points_seen: int, pixels_painted: int
    ) -> tuple[ClassScores, dict[str, int]]:
        """The logits, and what the request was like, the decision included."""
        logits = outputs[self._output].astype(np.float32, copy=False)
        calibrated = bool(logits[0, 1] - logits[0, 0] > self._parameters.miscalibration_confidence_threshold)
        return ClassScores.build(logits, [int(calibrated)]), {
            "points": points,
            "points_seen": points_seen,
            "pixels_painted": pixels_painted,
            "without_points": int(not points_seen),
            "logit_nan": int(np.isnan(logits).sum()),
            # Under the names of the classes: how many samples a run decides which way.
            "miscalibrated": int(not calibrated),
            "calibrated": int(calibrated),
        }


class CalibrationOnDevice(_Calibration):
    """A calibration status model whose steps are CUDA kernels. One request at a time."""

    def __init__(self, spec: ModelSpec, session: DeviceSession) -> None:
        super().__init__(spec)
        self.lane = CalibrationCuda(spec, self._parameters, session)

    def infer(self, data: CameraView) -> Inference:
        """The logits of one camera-lidar pair, see `Calibration.infer`; stages are times on the device."""
        self._check(data)
        answer = self.lane.infer(data.image, data.points, data.lidar2cam, self._straightening(data))
        scores, counters = self._answer(answer.outputs, len(data.points), answer.points_seen, answer.pixels_painted)
        return Inference(scores, answer.outputs, answer.latency_ms, counters)


class Calibration(_Calibration):
    """A calibration status model on a session, with its steps in NumPy and OpenCV. One request at a time."""

    def __init__(self, spec: ModelSpec, session: Session) -> None:
        super().__init__(spec)
        self._session = session
        self._component = spec.components[0].name
        self._input = spec.components[0].inputs[0].name
        self._fused = np.zeros((1, CHANNELS, 0, 0), np.float32)

    def infer(self, data: CameraView) -> Inference:
        """The logits of one camera-lidar pair, miscalibrated first.

        Raises:
            InferenceError: image or points of another form, a size that the model was not exported for, or the
                backend failed.
        """
        self._check(data)
        parameters = self._parameters
        height, width = data.image.shape[:2]
        clock = StageClock()
        how = self._straightening(data)
        image = undistort(data.image, how)
        clock.lap("undistort")
        seen = project(data.points, data.lidar2cam, how.intrinsics, height, width, parameters.max_depth)
        clock.lap("project")
        fused = self._buffer(height, width)
        painted = paint(
            seen, data.points[:, 3], parameters.max_depth, parameters.dilation_size, fused[0, 3], fused[0, 4]
        )
        clock.lap("paint")
        for channel in range(3):
            np.divide(image[..., channel], np.float32(255), out=fused[0, channel])
        clock.lap("fuse")
        outputs = self._session.run(self._component, {self._input: fused})
        clock.lap(self._component)
        scores, counters = self._answer(outputs, len(data.points), len(seen), painted)
        clock.lap("decide")
        return Inference(scores, outputs, clock.stop(), counters)

    def _buffer(self, height: int, width: int) -> npt.NDArray[np.float32]:
        if self._fused.shape[2:] != (height, width):
            self._fused = np.zeros((1, CHANNELS, height, width), np.float32)
        return self._fused
