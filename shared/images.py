"""Image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from shared.errors import InputError
from shared.lazy import lazy_import

cv2 = lazy_import("cv2", install="make setup")

#: What `read_image` knows for certain; other formats that OpenCV was built with work too.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """An image as OpenCV gives it: (H, W, 3) uint8, blue, green, red, turned as its EXIF orientation says.

    Grey and transparent images become three channels, as in mmcv's ``LoadImageFromFile``.

    Raises:
        InputError: no such file, or not a whole image.
        EnvironmentLacks: OpenCV is not installed.
    """
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise InputError(
            f"the image can't be read ({error.strerror or error})", where=str(path), hint="check data.root"
        ) from error
    image = cv2.imdecode(content, cv2.IMREAD_COLOR) if len(content) else None
    if image is None:
        raise InputError("is no image that OpenCV can decode", where=str(path), hint="copy or download it again")
    pixels: npt.NDArray[np.uint8] = image
    return pixels
