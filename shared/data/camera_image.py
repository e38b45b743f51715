"""Images of calibrated cameras: the pixels that the calibration applies to, or an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from shared.errors import InputError
from shared.images import decode_image
from shared.lazy import lazy_import

cv2 = lazy_import("cv2", install="make setup")

_CHANNELS = 3


def read_camera_image(path: Path, width: int | None = None, height: int | None = None) -> npt.NDArray[np.uint8]:
    """The pixels of a color image as they are stored.

    Unlike `shared.images.read_image`, this adapts nothing: the EXIF orientation is not applied (a calibration's pixel
    coordinates are those of the sensor), and a gray image is not accepted as a color one.

    Args:
        path: the file.
        width, height: the size that the calibration is for; None where the data set does not say.

    Returns:
        (H, W, 3) uint8: blue, green, red.

    Raises:
        InputError: the file is missing or not an image, or has a different number of channels or bits, or another size.
    """
    where = str(path)
    image = decode_image(path, cv2.IMREAD_UNCHANGED)
    channels = image.shape[2] if image.ndim == _CHANNELS else 1
    if channels != _CHANNELS or image.dtype != np.uint8:
        raise InputError(
            f"has {channels} channel{'s' if channels != 1 else ''} of {image.dtype}, expected {_CHANNELS} of uint8",
            where=where,
            hint="convert it to a color image with 8 bits per channel",
        )
    if (width or image.shape[1], height or image.shape[0]) != (image.shape[1], image.shape[0]):
        raise InputError(
            f"is {image.shape[1]} x {image.shape[0]}, its calibration is for {width} x {height}",
            where=where,
            hint="use the image as recorded, or scale its intrinsics with it",
        )
    return image
