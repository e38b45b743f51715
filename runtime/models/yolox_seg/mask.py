"""From the probabilities of the network's pixels to the labels of the image's.

Two conventions. ``awml``: scores are interpolated linearly in the image, and the highest one wins. AWML interpolates
logits; logarithms of probabilities differ from them by the same number for all classes of a pixel, so that after the
interpolation, which is linear, the same class wins. ``autoware``: the node labels the network's own pixels, and
publishes these; whoever takes them scales them to the nearest pixel.

`runtime.models.yolox_seg.device` has the same as CUDA kernels, equal to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.models.yolox.letterbox import Placement, place
from runtime.models.yolox.parameters import Letterbox
from runtime.models.yolox_seg.parameters import YoloxSegParameters
from shared.arrays import Float32, Int32, UInt8
from shared.errors import UsageError
from shared.metrics.confusion import UNLABELED
from shared.tasks.segmentation2d import ClassMask

# Probabilities below it have no logarithm of a float32's normal numbers.
LEAST = np.finfo(np.float32).tiny
# A class whose logarithm is so far below the best one's adds less than 1e-5 to the sum of probabilities: nothing.
NEGLIGIBLE = -12.0

# Lines of an image that are interpolated at once: what they need stays in the processor's cache.
_BAND = 8


@dataclass(frozen=True)
class Sampling:
    """Which pixels of a smaller or larger image the pixels of one axis of an image are made of.

    Attributes:
        pixels: (N, 2) int32, the two pixels that each lies between.
        fractions: (N,) float32, weight of the second of them; that of the first is the rest to 1.
    """

    pixels: Int32
    fractions: Float32

    def part(self, some: slice) -> Sampling:
        """That of some of the pixels."""
        return Sampling(self.pixels[some], self.fractions[some])


def samplings(placement: Placement, parameters: YoloxSegParameters) -> tuple[Sampling, Sampling]:
    """How the lines and the columns of an image are made of those that it takes up in the network's input."""
    return (_taken_in_place if parameters.mask.convention == "autoware" else _taken)(placement, parameters.image)


def _taken(placement: Placement, letterbox: Letterbox) -> tuple[Sampling, Sampling]:
    _, columns, lines = place(placement.width, placement.height, letterbox)
    return _between(lines, placement.height), _between(columns, placement.width)


def _taken_in_place(placement: Placement, letterbox: Letterbox) -> tuple[Sampling, Sampling]:
    scale = _scale_in_place(placement.width, placement.height, letterbox)
    lines, columns = (max(1, int(np.float32(side) * scale)) for side in (placement.height, placement.width))
    return _nearest(lines, placement.height), _nearest(columns, placement.width)


def _scale_in_place(width: int, height: int, letterbox: Letterbox) -> np.float32:
    """Network pixels per image pixel."""
    return min(np.float32(letterbox.width) / np.float32(width), np.float32(letterbox.height) / np.float32(height))


def _between(source: int, target: int) -> Sampling:
    """As PyTorch's ``interpolate(mode="bilinear", align_corners=False)``."""
    scale = np.float32(source) / np.float32(target)
    centers = np.arange(target, dtype=np.float32) + np.float32(0.5)
    positions = np.maximum(scale * centers - np.float32(0.5), np.float32(0))
    first = positions.astype(np.int32)
    second = np.minimum(first + 1, source - 1)
    return Sampling(np.stack([first, second], axis=1), positions - first.astype(np.float32))


def _nearest(source: int, target: int) -> Sampling:
    """The pixel of ``source`` ones that each falls into."""
    both = (np.arange(target) * source // target).astype(np.int32)
    return Sampling(np.stack([both, both], axis=1), np.zeros(target, np.float32))


def mask_of(probabilities: Float32, placement: Placement, parameters: YoloxSegParameters) -> ClassMask:
    """The mask of an image; `UNLABELED` where a probability is NaN.

    Args:
        probabilities: (K, H, W) float32 of the network's pixels.
        placement: where the image lies in them.
        parameters: of the model.
    """
    return _CONVENTIONS[parameters.mask.convention](probabilities, placement, parameters.image)


def in_place(probabilities: Float32, placement: Placement, letterbox: Letterbox) -> ClassMask:
    """By ``autoware``."""
    lines, columns = _taken_in_place(placement, letterbox)
    y, x = lines.pixels[:, :1], columns.pixels[:, 0]
    best, second, labels = _ranked(probabilities[:, : y[-1, 0] + 1, : x[-1] + 1])
    return ClassMask(labels[y, x], _steps(best - second)[y, x])


def interpolated(probabilities: Float32, placement: Placement, letterbox: Letterbox) -> ClassMask:
    """By ``awml``."""
    lines, columns = _taken(placement, letterbox)
    part = probabilities[:, : lines.pixels[-1, 1] + 1, : columns.pixels[-1, 1] + 1]
    # In double, rounded once: single precision differs from processor to processor.
    logs = np.log(np.maximum(part, LEAST).astype(np.float64)).astype(np.float32)
    height, width = len(lines.pixels), len(columns.pixels)
    labels, margins = np.empty((height, width), np.uint8), np.empty((height, width), np.uint8)
    for start in range(0, height, _BAND):
        band = slice(start, start + _BAND)
        layers = _resized(logs, lines.part(band), columns)
        best, second, labels[band] = _ranked(layers)
        total = best - best  # 0, and NaN where there is one
        for layer in layers:
            total += _share(layer - best)
        margins[band] = _steps((1 - _share(second - best)) / total)
    return ClassMask(labels, margins)


_CONVENTIONS: Mapping[str, Callable[[Float32, Placement, Letterbox], ClassMask]] = {
    "awml": interpolated,
    "autoware": in_place,
}


def _resized(layers: Float32, lines: Sampling, columns: Sampling) -> list[Float32]:
    """(H, W) float32 each: first along the lines, then across them, as PyTorch does."""
    top, bottom = int(lines.pixels[0, 0]), int(lines.pixels[-1, 1]) + 1
    left, right = columns.pixels.T
    above, below = (lines.pixels - top).T
    share, rest = lines.fractions[:, None], 1 - lines.fractions[:, None]
    result = []
    for layer in layers[:, top:bottom]:
        along = layer.take(left, axis=1) * (1 - columns.fractions) + layer.take(right, axis=1) * columns.fractions
        result.append(along[above] * rest + along[below] * share)
    return result


def _ranked(layers: Sequence[Float32] | Float32) -> tuple[Float32, Float32, UInt8]:
    """The highest of layers (H, W), the next, and the number of the highest; of equal ones the first."""
    best = layers[0].copy()
    second, labels = np.full_like(best, -np.inf), np.zeros(best.shape, np.uint8)
    for label, layer in enumerate(layers[1:], 1):
        labels[layer > best] = label
        np.maximum(second, np.minimum(best, layer), out=second)
        np.maximum(best, layer, out=best)
    labels[np.isnan(best)] = UNLABELED
    return best, second, labels


def _share(difference: Float32) -> Float32:
    """What a class whose logarithm is so much below the best one's has of the best one's probability."""
    counts = difference > NEGLIGIBLE
    if not counts.any():
        return np.zeros_like(difference)
    return np.where(counts, np.exp(difference.astype(np.float64)).astype(np.float32), np.float32(0))


def _steps(margins: Float32) -> UInt8:
    """Margins as `ClassMask` has them; 0 where there is none."""
    within = np.where(margins > 0, np.minimum(margins, 1), np.float32(0))
    return np.asarray(np.rint(np.float32(255) * within), np.uint8)


#: A run as Autoware's node writes it: the label, and for how many pixels.
RUN = np.dtype([("label", "u1"), ("count", "<i4")])


def run_lengths(labels: UInt8) -> npt.NDArray[np.void]:
    """Labels (H, W), line by line, as Autoware's node publishes them: runs (N,) of `RUN`, which go on across lines."""
    flat = labels.reshape(-1)
    starts = np.flatnonzero(np.diff(flat, prepend=flat[:1] + np.uint8(1)))
    runs = np.empty(len(starts), RUN)
    runs["label"], runs["count"] = flat[starts], np.diff(starts, append=flat.size)
    return runs


def network_labels(labels: UInt8, letterbox: Letterbox) -> UInt8:
    """The labels (h, w) of the network's pixels that `in_place` made an image's labels (H, W) of.

    Raises:
        UsageError: the image has fewer pixels than it takes up in the network's input.
    """
    height, width = labels.shape
    if _scale_in_place(width, height, letterbox) > 1:
        raise UsageError(
            f"an image of {width} x {height} is smaller than what it takes up in the network's input",
            hint="an answer has the labels of the image's pixels, and the node publishes those of the network's",
        )
    lines, columns = _taken_in_place(Placement(1, 1, width, height), letterbox)
    first = [np.flatnonzero(np.diff(each.pixels[:, 0], prepend=-1)) for each in (lines, columns)]
    return labels[np.ix_(*first)]
