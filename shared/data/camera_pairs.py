"""Camera-lidar pairs for calibration status: every camera image of a data set, in both states.

Sample 2k is image k with a calibration that was disturbed on purpose (`shared.data.miscalibration`), sample 2k + 1 the
same image with the calibration as it is: the label of sample i is ``i % 2``, the position of its state in `STATES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.data.miscalibration import Disturbance, Law, disturbance_of
from shared.data.types import Camera, Dataset, DataSource, PointFile, Sample
from shared.errors import InputError

#: Class names in AWML's order: label 0 is miscalibrated.
STATES = ("miscalibrated", "calibrated")
#: Numbers of distortion coefficients that OpenCV has a lens model for (T4 allows the same); 0: none.
DISTORTION_LENGTHS = (0, 4, 5, 8, 12, 14)


@dataclass(frozen=True)
class CameraPair:
    """A camera image with the points of a lidar and the assumed calibration between them.

    Attributes:
        index: position in its data set.
        token: unique in its data set; ends in the state.
        timestamp: of the lidar, seconds.
        scene: name or token of the drive it is from.
        channel: name of the camera.
        lidar: the points.
        image: the image file.
        camera: its calibration; ``lidar2cam`` is the disturbed one in the miscalibrated state.
        label: position of the state in `STATES`.
        disturbance: what ``lidar2cam`` was disturbed by; None in the calibrated state.
    """

    index: int
    token: str
    timestamp: float
    scene: str
    channel: str
    lidar: PointFile
    image: Path
    camera: Camera
    label: int = 1
    disturbance: Disturbance | None = None


def in_both_states(
    name: str,
    count: int,
    pair: Callable[[int], CameraPair],
    law: Law,
    digest_parts: Callable[[], list[Any]],
) -> Dataset[CameraPair]:
    """The data set of ``count`` pairs, each in both states.

    Args:
        name: of the data set.
        count: number of pairs.
        pair: the k-th pair, as the source has it; its token determines its disturbance.
        law: how calibrations are disturbed.
        digest_parts: what defines the pairs, as JSON values.
    """

    def build(index: int) -> CameraPair:
        source, label = pair(index // 2), index % 2
        check_calibration(source.camera, source.token)
        disturbance = disturbance_of(law, source.token) if label == 0 else None
        camera = source.camera
        if disturbance is not None:
            camera = replace(camera, lidar2cam=disturbance.apply(camera.lidar2cam))
        token = f"{source.token}/{STATES[label]}"
        return replace(source, index=index, token=token, camera=camera, label=label, disturbance=disturbance)

    return Dataset(
        name=name,
        classes=STATES,
        length=2 * count,
        build=build,
        digest_parts=lambda: [["miscalibration", law.preset, law.seed], *digest_parts()],
    )


def pairs_of_frames(frames: Dataset[Sample], law: Law) -> Dataset[CameraPair]:
    """The camera images of a data set of lidar frames, in both states; cameras without an image file are left out.

    Raises:
        InputError: there is no image, or a frame can't be read.
    """
    index: list[tuple[int, str]] = []
    for number in range(len(frames)):
        cameras = frames.sample(number).cameras
        index += [(number, channel) for channel, camera in cameras.items() if camera.image is not None]
    if not index:
        raise InputError("none of the frames has a camera image with a calibration", where=frames.name)

    def pair(position: int) -> CameraPair:
        number, channel = index[position]
        sample = frames.sample(number)
        camera = sample.cameras[channel]
        assert camera.image is not None
        return CameraPair(
            index=position,
            token=f"{sample.token}/{channel}",
            timestamp=sample.timestamp,
            scene=sample.scene,
            channel=channel,
            lidar=sample.lidar,
            image=camera.image,
            camera=camera,
        )

    return in_both_states(frames.name, len(index), pair, law, lambda: [frames.digest()])


def check_calibration(camera: Camera, where: str) -> None:
    """Refuse a calibration that no projection can be computed from.

    Raises:
        InputError: intrinsics or poses of another shape, numbers that are not finite, a focal length that is not
            positive, or a number of distortion coefficients that no lens model has.
    """
    _check_matrix(camera.intrinsics, (3, 3), "cam2img", where)
    _check_matrix(camera.lidar2cam, (4, 4), "lidar2cam", where)
    if camera.intrinsics[0, 0] <= 0 or camera.intrinsics[1, 1] <= 0:
        raise InputError(
            f"cam2img has the focal lengths {camera.intrinsics[0, 0]:g} and {camera.intrinsics[1, 1]:g}", where=where
        )
    coefficients = camera.distortion
    if coefficients.ndim != 1 or len(coefficients) not in DISTORTION_LENGTHS:
        raise InputError(
            f"has {coefficients.size} distortion coefficients",
            where=where,
            hint=f"lens models have {', '.join(map(str, DISTORTION_LENGTHS))}, in OpenCV's order",
        )
    if not np.isfinite(coefficients).all():
        raise InputError("a distortion coefficient is not a number", where=where)


def _check_matrix(matrix: npt.NDArray[np.float64], shape: tuple[int, int], name: str, where: str) -> None:
    if matrix.shape != shape:
        raise InputError(f"{name} has shape {matrix.shape} instead of {shape}", where=where)
    if not np.isfinite(matrix).all():
        raise InputError(f"{name} has a value that is not a number", where=where)


def pairs_opener(
    open_frames: Callable[[DataSource, Path], Dataset[Sample]],
) -> Callable[[DataSource, Path], Dataset[CameraPair]]:
    """An opener of the frames' camera pairs. It raises what ``open_frames`` does, and InputError without an image."""
    return lambda settings, folder: pairs_of_frames(open_frames(settings, folder), settings.miscalibration)
