"""Photos of the report, and points on them, embedded in the page as data URIs, so that nothing is fetched.

With Pillow, not OpenCV: nothing is measured on these pixels, and OpenCV would be two fifths of the evaluator's image.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shared.arrays import UInt8
from shared.errors import InputError
from shared.lazy import lazy_import

pil_image = lazy_import("PIL.Image", install="make setup")
pil_ops = lazy_import("PIL.ImageOps", install="make setup")
pil_draw = lazy_import("PIL.ImageDraw", install="make setup")


def read_photo(path: Path, *, upright: bool) -> UInt8:
    """(H, W, 3) red, green, blue of an image file.

    Args:
        path: the file.
        upright: rotate it as its EXIF orientation says; otherwise the pixels as they are stored, which calibrations
            apply to.

    Raises:
        InputError: the file is missing, or is not a complete image.
    """
    try:
        with pil_image.open(path) as file:
            photo = pil_ops.exif_transpose(file) if upright else file
            return np.array(photo.convert("RGB"))
    except (OSError, ValueError, SyntaxError, pil_image.DecompressionBombError) as error:
        raise InputError(
            f"the image can't be read ({error})", where=str(path), hint="check data.root, or copy it again"
        ) from error


def draw_dots(photo: UInt8, pixels: npt.NDArray[np.float64], colors: UInt8, radius: int) -> UInt8:
    """``photo`` with discs at ``pixels`` (N, 2: right, down) in ``colors`` (N, 3); later ones cover earlier ones."""
    drawing = pil_image.fromarray(photo)
    pen = pil_draw.Draw(drawing)
    for (x, y), color in zip(pixels.astype(int).tolist(), colors.tolist(), strict=True):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tuple(color))
    return np.array(drawing)


def jpeg(photo: UInt8, widest: int, quality: int) -> str:
    """Data URI of a photo (H, W, 3), red, green, blue; those wider than ``widest`` are scaled down."""
    image = pil_image.fromarray(photo)
    height, width = photo.shape[:2]
    if width > widest:
        image = image.resize((widest, max(1, round(height * widest / width))), pil_image.Resampling.BOX)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return _uri("jpeg", file.getvalue())


def _uri(kind: str, encoded: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"
