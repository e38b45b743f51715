"""The steps before the network, with Pillow and OpenCV, as mmcv's transforms and Autoware's node take them."""

from __future__ import annotations

import numpy as np

from awml_deploy_traffic_light.runtime_model.image import CenterCrop, ImageInput, ImageStep, Pad, Resize, ResizeEdge
from shared.arrays import Float32, UInt8
from shared.errors import InferenceError
from shared.lazy import lazy_import

cv2 = lazy_import("cv2", install="make setup")
pil_image = lazy_import("PIL.Image", install="make plugins")

_CV2 = {"nearest": "NEAREST", "bilinear": "LINEAR", "bicubic": "CUBIC", "area": "AREA", "lanczos": "LANCZOS4"}
_PILLOW = {"nearest": "NEAREST", "bilinear": "BILINEAR", "bicubic": "BICUBIC", "area": "BOX", "lanczos": "LANCZOS"}


def prepare(image: UInt8, settings: ImageInput, out: Float32) -> None:
    """Write the network's input for an image.

    Args:
        image: (h, w, 3) uint8: blue, green, red.
        settings: how.
        out: (3, settings.height, settings.width) float32, written to.

    Raises:
        InferenceError: the image is none, or has another size after the steps.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise InferenceError(f"the image has the shape {image.shape} and is {image.dtype}, expected (H, W, 3) uint8")
    shape = image.shape
    for step in settings.steps:
        image = _after(image, step)
    if image.shape[:2] != out.shape[1:]:
        raise InferenceError(
            f"an image of {shape[1]} x {shape[0]} is {image.shape[1]} x {image.shape[0]} after the test pipeline, the "
            f"network takes {settings.width} x {settings.height}"
        )
    order = (2, 1, 0) if settings.color == "rgb" else (0, 1, 2)
    for channel, source in enumerate(order):
        np.copyto(out[channel], image[..., source])
        out[channel] -= np.float32(settings.mean[channel])
        out[channel] /= np.float32(settings.std[channel])


def _after(image: UInt8, step: ImageStep) -> UInt8:
    height, width = image.shape[:2]
    if isinstance(step, Resize | ResizeEdge):
        return _scaled(image, step.size_of(width, height), step.library, step.interpolation)
    if isinstance(step, CenterCrop):
        left, top = max(0, round((width - step.width) / 2)), max(0, round((height - step.height) / 2))
        return image[top : top + step.height, left : left + step.width]
    return _filled_up(image, step)


def _scaled(image: UInt8, size: tuple[int, int], library: str, interpolation: str) -> UInt8:
    if library == "cv2":
        scaled: UInt8 = cv2.resize(image, size, interpolation=getattr(cv2, f"INTER_{_CV2[interpolation]}"))
        return scaled
    method = getattr(pil_image.Resampling, _PILLOW[interpolation])
    return np.asarray(pil_image.fromarray(image).resize(size, method), np.uint8)


def _filled_up(image: UInt8, step: Pad) -> UInt8:
    height, width = image.shape[:2]
    canvas = np.full((step.height or max(width, height), step.width or max(width, height), 3), step.fill, np.uint8)
    if canvas.shape[0] < height or canvas.shape[1] < width:
        return image  # the size is checked at the end
    canvas[:height, :width] = image
    return canvas
