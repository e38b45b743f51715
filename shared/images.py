"""Image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from shared.errors import InputError
from shared.lazy import lazy_import
from shared.regular_files import read_bytes

cv2 = lazy_import("cv2", install="make setup")

#: Formats that `read_image` always reads; any other that OpenCV was built with works, too.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """An image as OpenCV gives it: (H, W, 3) uint8, blue, green, red, rotated as its EXIF orientation says.

    Gray and transparent images become three channels, as in mmcv's ``LoadImageFromFile``.

    Raises:
        InputError: the file is missing, or is not a complete image.
        EnvironmentLacks: OpenCV is not installed.
    """
    return decode_image(path, cv2.IMREAD_COLOR)


def decode_image(path: Path, flags: int) -> npt.NDArray[np.uint8]:
    """An image, read as ``cv2.imdecode`` does with ``flags``.

    Raises:
        InputError: the file is missing, or is not a complete image.
    """
    where = str(path)
    content = np.frombuffer(read_bytes(path, hint="check data.root and data.data_prefix"), np.uint8)
    try:
        image: npt.NDArray[np.uint8] | None = cv2.imdecode(content, flags) if len(content) else None
    except cv2.error:  # sizes that OpenCV refuses, for example
        image = None
    if image is None:
        raise InputError("can't be decoded as an image", where=where, hint="the file is truncated or not an image")
    return image
