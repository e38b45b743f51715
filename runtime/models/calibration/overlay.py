"""`runtime overlay`: what a calibration status model is shown, as a picture: lidar points over the camera's image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from runtime.models.calibration.paint import paint
from runtime.models.calibration.parameters import CalibrationParameters, read_parameters
from runtime.models.calibration.project import project
from runtime.models.calibration.undistort import UndistortionMap, undistort, undistortion_map
from shared.arrays import UInt8
from shared.config import from_resolved
from shared.data import open_dataset, read_points
from shared.data.camera_image import read_camera_image
from shared.data.camera_pairs import STATES, CameraPair
from shared.errors import UsageError
from shared.files import write_bytes
from shared.lazy import lazy_import
from shared.workspace import Workspace

cv2 = lazy_import("cv2", install="make setup")


# Colors run from near (red) to this distance (blue); farther points keep the last color.
_COLOR_RANGE = 60.0  # [m]
_OPACITY = 0.8
_TASK = "classification"


def overlay(work: Path, sample_index: int, out: Path, *, data_root: Path | None = None) -> str:
    """Write a picture of a camera-lidar pair in both states: calibrated above, miscalibrated below.

    Args:
        work: a workspace with a calibration status model.
        sample_index: one of the two samples of the pair.
        out: the picture, .png or .jpg.
        data_root: where the data set lies, when not where the config says.

    Returns:
        What the picture shows, as text.

    Raises:
        UsageError: the model is of another task, there is no such sample, or no such kind of picture.
        InputError: a file of the sample is missing or broken.
    """
    workspace = Workspace.open(work)
    spec = workspace.spec()
    if spec.task != _TASK:
        raise UsageError(f"the model does {spec.task}", where=str(work), hint=f"overlays are for {_TASK}")
    if not cv2.haveImageWriter(out.name):
        raise UsageError(f"can't write pictures of kind '{out.suffix}'", where="--out", hint="use .png or .jpg")
    parameters = read_parameters(spec)
    dataset = open_dataset(from_resolved(workspace.config(), where=str(work)).data, root=data_root, task=spec.task)
    if not 0 <= sample_index < len(dataset):
        raise UsageError(f"sample {sample_index} is not in the data set", hint=f"choose 0 to {len(dataset) - 1}")
    first = sample_index - sample_index % len(STATES)
    pair = [dataset.sample(first + label) for label in reversed(range(len(STATES)))]
    picture = np.concatenate([draw(sample, parameters) for sample in pair])
    encoded = cv2.imencode(out.suffix, picture)[1]
    write_bytes(out, encoded.tobytes())
    return f"{out}: {', '.join(_described(sample) for sample in pair)}"


def draw(sample: CameraPair, parameters: CalibrationParameters) -> UInt8:
    """(H, W, 3) uint8 blue, green, red: the undistorted image, its points colored by depth, and a caption."""
    image = read_camera_image(sample.image, sample.camera.width, sample.camera.height)
    height, width = image.shape[:2]
    camera = sample.camera
    mapping = UndistortionMap(camera.intrinsics, None, None)
    if parameters.undistort:
        mapping = undistortion_map(camera.intrinsics, camera.distortion, height, width)
    points = read_points(sample.lidar)
    seen = project(points, camera.lidar2cam, mapping.intrinsics, height, width, parameters.max_depth)
    depth, intensity = np.zeros((2, height, width), np.float32)
    paint(seen, points[:, 3], parameters.max_depth, parameters.dilation_size, depth, intensity)
    shade = np.clip(1 - depth * parameters.max_depth / _COLOR_RANGE, 0, 1)
    colors = cv2.applyColorMap((255 * shade).astype(np.uint8), cv2.COLORMAP_JET)
    undistorted = undistort(image, mapping)
    mixed = cv2.addWeighted(undistorted, 1 - _OPACITY, colors, _OPACITY, 0)
    picture: UInt8 = np.where((depth > 0)[..., None], mixed, undistorted)
    _write_caption(picture, f"{_described(sample)}, {len(seen)} points")
    return picture


def _described(sample: CameraPair) -> str:
    """Camera, state and disturbance of a sample."""
    text = f"{sample.channel} {STATES[sample.label]}"
    if sample.disturbance is None:
        return text
    return f"{text} by {sample.disturbance.rotation_deg:.1f} deg and {sample.disturbance.translation_m:.2f} m"


def _write_caption(picture: UInt8, text: str) -> None:
    """Write white on black into the top left corner, in place."""
    scale = max(0.4, picture.shape[1] / 2000)
    (wide, tall), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    cv2.rectangle(picture, (0, 0), (wide + 8, tall + below + 8), (0, 0, 0), -1)
    cv2.putText(picture, text, (4, tall + 4), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA)
