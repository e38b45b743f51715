"""Calibration status step by step: read, undistort, project, fuse, the network, decide."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.backends import Session
from runtime.models.calibration.paint import paint
from runtime.models.calibration.pipeline import Calibration, CameraView
from runtime.models.calibration.project import ProjectedPoints, project
from runtime.models.calibration.undistort import undistort
from runtime.steps import Arrays, Step
from shared.data.camera_pairs import CameraPair
from shared.spec import ModelSpec
from shared.tasks.classification import TASK

_INTENSITY = 3


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


def steps(spec: ModelSpec, session: Session) -> list[Step]:
    """The steps of a calibration status model, see `runtime.steps.steps_of`."""
    return _StagedCalibration(spec, session).steps()


class _StagedCalibration(Calibration):
    """The pipeline's buffer and settings, one step at a time."""

    def steps(self) -> list[Step]:
        """The steps, in order."""
        return [
            Step("read", self._read_view, _pack_view, _unpack_view),
            # A view without distortion is a view, with the intrinsics of the straightened image.
            Step("undistort", self._undistorted, _pack_view, _unpack_view),
            Step("project", self._projected, _pack_projected, _unpack_projected),
            Step("fuse", self._fuse, lambda fused: {self._input: fused}, lambda arrays: arrays[self._input]),
            Step(self._component, lambda fused: self._session.run(self._component, {self._input: fused}), dict, dict),
            Step(
                "decide",
                lambda outputs: self._answer(outputs, 0, 0, 0)[0],
                TASK.arrays,
                TASK.from_arrays,
            ),
        ]

    def _read_view(self, sample: CameraPair) -> CameraView:
        view: CameraView = self.read(sample).data
        self._check(view)
        return view

    def _undistorted(self, view: CameraView) -> CameraView:
        how = self._straightening(view)
        return replace(view, image=undistort(view.image, how), intrinsics=how.intrinsics, distortion=np.zeros(0))

    def _projected(self, view: CameraView) -> Projected:
        height, width = view.image.shape[:2]
        depth = self._parameters.max_depth
        points = project(view.points, view.lidar2cam, view.intrinsics, height, width, depth)
        return Projected(view.image, points, view.points[:, _INTENSITY])

    def _fuse(self, state: Projected) -> npt.NDArray[np.float32]:
        parameters = self._parameters
        fused = self._buffer(*state.image.shape[:2])
        paint(state.points, state.intensities, parameters.max_depth, parameters.dilation_size, fused[0, 3], fused[0, 4])
        for channel in range(3):
            np.divide(state.image[..., channel], np.float32(255), out=fused[0, channel])
        return fused


def _pack_view(view: CameraView) -> dict[str, npt.NDArray[Any]]:
    return {field.name: getattr(view, field.name) for field in fields(CameraView)}


def _unpack_view(arrays: Arrays) -> CameraView:
    return CameraView(**{field.name: arrays[field.name] for field in fields(CameraView)})


def _pack_projected(state: Projected) -> dict[str, npt.NDArray[Any]]:
    points = {field.name: getattr(state.points, field.name) for field in fields(ProjectedPoints)}
    return {"image": state.image, "intensities": state.intensities, **points}


def _unpack_projected(arrays: Arrays) -> Projected:
    points = ProjectedPoints(**{field.name: arrays[field.name] for field in fields(ProjectedPoints)})
    return Projected(arrays["image"], points, arrays["intensities"])
