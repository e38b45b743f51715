"""Calibration status, from a camera image and lidar points to logits: the steps in NumPy and OpenCV.

image, points -> undistort -> project -> paint -> fuse -> end2end -> decide

`runtime.models.calibration.device` has the same steps as CUDA kernels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.backends import Session
from runtime.models.calibration.paint import paint
from runtime.models.calibration.parameters import CHANNELS, POINT_COLUMNS, CalibrationParameters
from runtime.models.calibration.project import ProjectedPoints, project
from runtime.models.calibration.undistort import UndistortionMap, undistort, undistortion_map
from runtime.pipeline import (
    ArraysByName,
    Packing,
    Step,
    component_step,
    dataclass_of_arrays,
    one_array,
    predictions_of,
)
from shared.errors import InferenceError
from shared.spec import ModelSpec
from shared.tasks.classification import ClassScores

# A vehicle has about a dozen cameras; their maps are 32 MB each at 8 megapixels.
CAMERAS_KEPT = 16
_INTENSITY = 3
_DEPTH_CHANNEL, _INTENSITY_CHANNEL = 3, 4


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


@dataclass(frozen=True)
class Projected:
    """An image without distortion, and the points in it.

    Attributes:
        image: (H, W, 3) uint8, blue, green, red.
        points: where they lie.
        intensities: (M,) float32 of all points, 0-255.
    """

    image: npt.NDArray[np.uint8]
    points: ProjectedPoints
    intensities: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Painted:
    """An image without distortion, and the channels with the points.

    Attributes:
        image: (H, W, 3) uint8, blue, green, red.
        fused: (1, 5, H, W) float32, its depth and intensity painted.
        pixels: how many show a point.
    """

    image: npt.NDArray[np.uint8]
    fused: npt.NDArray[np.float32]
    pixels: int


def steps(spec: ModelSpec, parameters: CalibrationParameters, session: Session) -> list[Step]:
    """The steps of a request, with what they keep from one to the next: the maps of the cameras, and a buffer."""
    (component,) = spec.components
    (tensor,) = component.inputs
    maps = UndistortionMaps(parameters)
    buffer = _Buffer()

    def undistorted(view: CameraView) -> CameraView:
        """A view without distortion is a view, with the intrinsics of the undistorted image."""
        mapping = maps.of(checked(view, tensor.shape))
        image = undistort(view.image, mapping)
        return replace(view, image=image, intrinsics=mapping.intrinsics, distortion=np.zeros(0))

    def projected(view: CameraView) -> Projected:
        height, width = view.image.shape[:2]
        points = project(view.points, view.lidar2cam, view.intrinsics, height, width, parameters.max_depth)
        return Projected(view.image, points, view.points[:, _INTENSITY])

    def painted(state: Projected) -> Painted:
        fused = buffer.of(*state.image.shape[:2])
        depth, intensity = fused[0, _DEPTH_CHANNEL], fused[0, _INTENSITY_CHANNEL]
        pixels = paint(
            state.points, state.intensities, parameters.max_depth, parameters.dilation_size, depth, intensity
        )
        return Painted(state.image, fused, pixels)

    def fused(state: Painted) -> npt.NDArray[np.float32]:
        for channel in range(3):
            np.divide(state.image[..., channel], np.float32(255), out=state.fused[0, channel])
        return state.fused

    return [
        Step("undistort", undistorted, dataclass_of_arrays(CameraView), lambda view: {"points": len(view.points)}),
        Step("project", projected, _PROJECTED, lambda state: seen(len(state.points))),
        Step("paint", painted, _PAINTED, lambda state: {"pixels_painted": state.pixels}),
        Step("fuse", fused, one_array(tensor.name)),
        component_step(component, session),
        Step(
            "decide",
            lambda outputs: decided(outputs[component.outputs[0].name], parameters),
            predictions_of(spec),
            decisions,
        ),
    ]


def checked(view: CameraView, input_shape: list[int | str]) -> CameraView:
    """The view.

    Args:
        view: of a request.
        input_shape: of the model, (1, 5, height, width), a name where any size will do.

    Raises:
        InferenceError: image or points of another form, or a size that the model was not exported for.
    """
    image, points = view.image, view.points
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InferenceError(f"the image has the shape {image.shape} of {image.dtype}, expected (H, W, 3) of uint8")
    if points.ndim != 2 or points.shape[1] < POINT_COLUMNS:
        raise InferenceError(f"points have the shape {points.shape}, expected (N, at least {POINT_COLUMNS})")
    for wanted, size in zip(input_shape[2:], image.shape[:2], strict=True):
        if isinstance(wanted, int) and wanted != size:
            raise InferenceError(
                f"the image is {image.shape[1]} x {image.shape[0]}, the model was exported for a fixed "
                f"size of {input_shape[3]} x {input_shape[2]}",
                hint="export with dynamic height and width",
            )
    return view


class UndistortionMaps:
    """How each camera's images are undistorted: computed for its first image, kept for the next ones."""

    def __init__(self, parameters: CalibrationParameters) -> None:
        self._undistort = parameters.undistort
        self._maps: dict[tuple[Any, ...], UndistortionMap] = {}

    def __len__(self) -> int:
        return len(self._maps)

    def of(self, view: CameraView) -> UndistortionMap:
        """That of a view's camera, the same object as long as it is kept."""
        if not self._undistort:
            return UndistortionMap(view.intrinsics, None, None)
        height, width = view.image.shape[:2]
        key = (view.intrinsics.tobytes(), view.distortion.tobytes(), height, width)
        if key not in self._maps:
            if len(self._maps) == CAMERAS_KEPT:
                self._maps.pop(next(iter(self._maps)))
            self._maps[key] = undistortion_map(view.intrinsics, view.distortion, height, width)
        return self._maps[key]


def seen(points: int) -> dict[str, int]:
    """Counters of the points that an image shows."""
    return {"points_seen": points, "without_points": int(not points)}


def decided(logits: npt.NDArray[Any], parameters: CalibrationParameters) -> ClassScores:
    """The scores, with the decision of Autoware's node.

    Args:
        logits: (1, 2), miscalibrated first.
        parameters: of the model.
    """
    scores = logits.astype(np.float32, copy=False)
    calibrated = bool(scores[0, 1] - scores[0, 0] > parameters.miscalibration_confidence_threshold)
    return ClassScores.build(scores, [int(calibrated)])


def decisions(scores: ClassScores) -> dict[str, int]:
    """Counters of a request; under the names of the classes how it was decided."""
    calibrated = int(scores.labels[0])
    return {
        "logit_nan": int(np.isnan(scores.logits).sum()),
        "miscalibrated": 1 - calibrated,
        "calibrated": calibrated,
    }


class _Buffer:
    """The five channels of the last size of image."""

    def __init__(self) -> None:
        self._fused = np.zeros((1, CHANNELS, 0, 0), np.float32)

    def of(self, height: int, width: int) -> npt.NDArray[np.float32]:
        if self._fused.shape[2:] != (height, width):
            self._fused = np.zeros((1, CHANNELS, height, width), np.float32)
        return self._fused


def _projected() -> Packing:
    points = dataclass_of_arrays(ProjectedPoints)
    return Packing(
        lambda state: {"image": state.image, "intensities": state.intensities, **points.pack(state.points)},
        lambda arrays: Projected(arrays["image"], points.unpack(arrays), arrays["intensities"]),
    )


def _unpack_painted(arrays: ArraysByName) -> Painted:
    depth, intensity = arrays["depth"], arrays["intensity"]
    fused = np.zeros((1, CHANNELS, *depth.shape), np.float32)
    fused[0, _DEPTH_CHANNEL], fused[0, _INTENSITY_CHANNEL] = depth, intensity
    return Painted(arrays["image"], fused, int(np.count_nonzero(depth)))


_PROJECTED = _projected()
_PAINTED = Packing(
    lambda state: {
        "image": state.image,
        "depth": state.fused[0, _DEPTH_CHANNEL],
        "intensity": state.fused[0, _INTENSITY_CHANNEL],
    },
    _unpack_painted,
)
