"""Pixels into the page: data URIs, so that nothing is fetched."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.lazy import lazy_import

cv2 = lazy_import("cv2", install="make setup")

UInt8 = npt.NDArray[np.uint8]

# Wide enough for a screen, and four of them fit a report many times over.
_WIDEST = 1280
_QUALITY = 82


def jpeg(image: UInt8) -> str:
    """Data URI of a photo (H, W, 3), blue, green, red; wider ones are scaled down."""
    height, width = image.shape[:2]
    if width > _WIDEST:
        image = cv2.resize(image, (_WIDEST, round(height * _WIDEST / width)), interpolation=cv2.INTER_AREA)
    return _uri("jpeg", cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1])


def png(image: UInt8) -> str:
    """Data URI of a drawing (H, W, 4), blue, green, red, opacity; without loss."""
    return _uri("png", cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1])


def _uri(kind: str, encoded: npt.NDArray[Any]) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"
