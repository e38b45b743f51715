"""The pipeline of a calibration status model: on the host or on a GPU; how samples are read, and alerts."""

from __future__ import annotations

from runtime.backends import Session
from runtime.cuda.session import DeviceSession
from runtime.models.calibration.device import CalibrationOnDevice
from runtime.models.calibration.parameters import POINT_COLUMNS, read_parameters
from runtime.models.calibration.steps import CameraView, steps
from runtime.pipeline import Counters, HostPipeline, Interface, Pipeline, PipelineInput, dataclass_of_arrays
from shared.data import read_points
from shared.data.camera_image import read_camera_image
from shared.data.camera_pairs import CameraPair
from shared.data.sweeps import finite_rows
from shared.data.views import CAMERA_PAIR, sample_of
from shared.errors import InputError
from shared.spec import ModelSpec


def build(spec: ModelSpec, session: Session) -> Pipeline:
    """The pipeline of a calibration status model, see `runtime.pipeline.build_pipeline`."""
    parameters = read_parameters(spec)
    interface = Interface(read, dataclass_of_arrays(CameraView), alerts=alerts)
    if isinstance(session, DeviceSession):
        return CalibrationOnDevice(interface, spec, parameters, session)
    return HostPipeline(interface, steps(spec, parameters, session))


def read(sample: CameraPair) -> PipelineInput:
    """Image, points and calibration of a sample.

    Raises:
        ConfigError: the data set gives no pairs.
        InputError: a file is missing or broken, the image is not in color, or points have no intensity.
    """
    sample = sample_of(CAMERA_PAIR, CameraPair, sample)
    image = read_camera_image(sample.image, sample.camera.width, sample.camera.height)
    points = read_points(sample.lidar)
    if points.shape[1] < POINT_COLUMNS:
        raise InputError(f"points have {points.shape[1]} columns, without an intensity", where=str(sample.lidar.path))
    camera = sample.camera
    finite = finite_rows(points[:, :POINT_COLUMNS])
    counters = {"read": len(points), "read_nan": len(points) - int(finite.sum())}
    if counters["read_nan"]:
        points = points[finite]
    return PipelineInput(CameraView(image, points, camera.intrinsics, camera.distortion, camera.lidar2cam), counters)


def alerts(counters: Counters) -> list[str]:
    """Images without lidar points, points that were left out, NaN logits."""
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
