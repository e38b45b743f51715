"""From the probabilities of the network's pixels to the labels of the image's.

Two conventions. ``awml``: scores are interpolated linearly in the image, and the highest one wins. AWML interpolates
logits; logarithms of probabilities differ from them by the same number for all classes of a pixel, so that after the
interpolation, which is linear, the same class wins. ``autoware``: the node labels the network's own pixels, and
publishes these; an image's pixel has the label of the one that it falls into.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from runtime.models.yolox.letterbox import Placement, place
from runtime.models.yolox.parameters import Letterbox
from runtime.models.yolox_seg.parameters import YoloxSegParameters
from shared.arrays import Float32, Int64, UInt8
from shared.tasks.segmentation2d import ClassMask

# Probabilities below it have no logarithm of a float32's normal numbers.
_LEAST = np.finfo(np.float32).tiny


def mask_of(probabilities: Float32, placement: Placement, parameters: YoloxSegParameters) -> ClassMask:
    """The mask of an image.

    Args:
        probabilities: (K, H, W) float32 of the network's pixels.
        placement: where the image lies in them.
        parameters: of the model.
    """
    return _CONVENTIONS[parameters.mask.convention](probabilities, placement, parameters.image)


def interpolated(probabilities: Float32, placement: Placement, letterbox: Letterbox) -> ClassMask:
    """By ``awml``."""
    _, columns, lines = place(placement.width, placement.height, letterbox)
    scores = np.log(np.maximum(probabilities[:, :lines, :columns], _LEAST))
    layers = np.exp(_resized(_resized(scores, placement.height, 1), placement.width, 2))
    return ClassMask.of_probabilities(layers / layers.sum(axis=0))


def _resized(layers: Float32, target: int, axis: int) -> Float32:
    """Layers of another length along an axis, linear between the centers of pixels, as PyTorch's ``interpolate``."""
    source = layers.shape[axis]
    position = np.maximum(
        (np.arange(target, dtype=np.float32) + np.float32(0.5)) * np.float32(source / target) - np.float32(0.5), 0
    )
    first = position.astype(np.int64)
    second = np.minimum(first + 1, source - 1)
    share = (position - first.astype(np.float32)).reshape([-1 if each == axis else 1 for each in range(3)])
    return np.asarray(layers.take(first, axis) * (1 - share) + layers.take(second, axis) * share)


def in_place(probabilities: Float32, placement: Placement, letterbox: Letterbox) -> ClassMask:
    """By ``autoware``."""
    scale = min(
        np.float32(letterbox.width) / np.float32(placement.width),
        np.float32(letterbox.height) / np.float32(placement.height),
    )
    region = probabilities[:, : _whole(placement.height, scale), : _whole(placement.width, scale)]
    own = ClassMask.of_probabilities(region)
    lines, columns = own.labels.shape
    y, x = _nearest(lines, placement.height)[:, None], _nearest(columns, placement.width)
    return ClassMask(own.labels[y, x], own.margins[y, x])


def _whole(side: int, scale: np.float32) -> int:
    return max(1, int(np.float32(side) * scale))


def _nearest(source: int, target: int) -> Int64:
    """(target,) the pixel of ``source`` ones that each falls into."""
    return np.arange(target) * source // target


_CONVENTIONS: Mapping[str, Callable[[Float32, Placement, Letterbox], ClassMask]] = {
    "awml": interpolated,
    "autoware": in_place,
}


def run_lengths(labels: UInt8) -> tuple[UInt8, Int64]:
    """Labels (H, W), line by line, as Autoware's node publishes them: each label with how often it comes in a row."""
    flat = labels.reshape(-1)
    starts = np.flatnonzero(np.diff(flat, prepend=flat[:1] + np.uint8(1)))
    return flat[starts], np.diff(starts, append=flat.size)
