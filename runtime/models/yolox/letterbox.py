"""Letterboxing: an image scaled to fit the network's input, aligned to its top left corner, the rest filled.

Programs agree on the idea and differ in the details, which have names: `runtime.models.yolox.parameters.CONVENTIONS`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runtime.models.yolox.parameters import Letterbox
from shared.arrays import Float32, UInt8
from shared.lazy import lazy_import

cv2 = lazy_import("cv2", install="make setup")


@dataclass(frozen=True)
class Placement:
    """Where an image lies in the network's input.

    Attributes:
        scale_x, scale_y: input pixels per image pixel.
        width, height: of the image [px].
    """

    scale_x: float
    scale_y: float
    width: int
    height: int


def place(width: int, height: int, settings: Letterbox) -> tuple[Placement, int, int]:
    """Where an image of a size goes.

    Args:
        width, height: of the image [px].
        settings: the letterbox.

    Returns:
        The placement, and the scaled width and height [px].
    """
    convention = settings.convention
    scale = min(settings.width / width, settings.height / height)
    extra = 0.5 if convention.round_size else 0.0
    # A strip of an image must not vanish.
    scaled = max(1, int(width * scale + extra)), max(1, int(height * scale + extra))
    if convention.stretched:
        scaled = settings.width, settings.height
    scales = (scaled[0] / width, scaled[1] / height) if convention.scale_per_axis else (scale, scale)
    return Placement(scales[0], scales[1], width, height), *scaled


def letterbox(image: UInt8, settings: Letterbox, out: Float32) -> Placement:
    """Write the network's input for an image.

    Args:
        image: (H, W, 3) uint8, blue, green, red.
        settings: how.
        out: (3, settings.height, settings.width) float32, written to.

    Returns:
        Where the image lies in it.
    """
    placement, width, height = place(image.shape[1], image.shape[0], settings)
    canvas = np.full((settings.height, settings.width, 3), settings.fill, np.uint8)
    method = cv2.INTER_CUBIC if settings.convention.cubic else cv2.INTER_LINEAR
    canvas[:height, :width] = cv2.resize(image, (width, height), interpolation=method)
    for channel in range(3):
        np.copyto(out[channel], canvas[:, :, 2 - channel if settings.color == "rgb" else channel])
        if settings.mean is not None and settings.std is not None:
            out[channel] -= np.float32(settings.mean[channel])
            out[channel] /= np.float32(settings.std[channel])
    return placement
