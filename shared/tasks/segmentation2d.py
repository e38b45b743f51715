"""2D segmentation: a class for each pixel of an image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from shared.arrays import Arrays, Int64, UInt8
from shared.metrics.confusion import MOST_CLASSES, UNLABELED, agreement, confusion
from shared.pairing import SURE_MARGIN, Pairing, pair_by_position
from shared.tasks import ErrorKind, Task

if TYPE_CHECKING:
    from shared.data.types import ImageSample

#: Steps of a margin between 0 and 1.
_STEPS = 255


@dataclass(frozen=True)
class ClassMask:
    """The classes of the pixels of an image of H rows and W columns.

    Attributes:
        labels: (H, W) uint8; `shared.metrics.confusion.UNLABELED` for a pixel of no class.
        margins: (H, W) uint8, by how much the probability of the class is above that of the next, in steps of 1/255:
            an image has ten times the pixels that a frame has points. 255 for ground truth.
    """

    labels: UInt8
    margins: UInt8

    def __post_init__(self) -> None:
        if self.labels.ndim != 2 or self.labels.shape != self.margins.shape:
            raise ValueError(f"labels of shape {self.labels.shape}, margins of shape {self.margins.shape}")

    def __len__(self) -> int:
        """Pixels."""
        return self.labels.size

    @staticmethod
    def build(labels: npt.ArrayLike, margins: npt.ArrayLike | None = None) -> ClassMask:
        """A mask from anything array-like (H, W); margins in [0, 1] default to 1."""
        array = np.asarray(labels, np.uint8)
        shares = np.ones(array.shape) if margins is None else np.asarray(margins)
        return ClassMask(array, np.rint(_STEPS * shares).astype(np.uint8))

    @staticmethod
    def of_probabilities(probabilities: npt.ArrayLike) -> ClassMask:
        """The likeliest of (C, H, W) probabilities; of equal ones the first."""
        layers = np.asarray(probabilities, np.float32)
        best_two = -np.partition(-layers, 1, axis=0)[:2]
        return ClassMask.build(layers.argmax(axis=0), best_two[0] - best_two[1])


class Segmentation2D(Task[ClassMask]):
    """2D segmentation.

    Pixels of two masks belong together by their position. Where each of the two decides by a step of the margin at
    most, different classes are no flip.
    """

    container = ClassMask
    view = "image"
    # A step, where probabilities differ by a thousandth; twice what a score may differ by elsewhere.
    errors: ClassVar = {"margin": ErrorKind("", 1.01 / _STEPS, 0.02, 0.04, 0.2)}
    shifts: ClassVar = {"confidence": "margin"}
    by_label = True
    metric = "mIoU"

    def empty(self) -> ClassMask:
        """An image without pixels."""
        return ClassMask.build(np.zeros((0, 0)))

    def arrays(self, predictions: ClassMask) -> Arrays:
        """The columns flat, and how high and wide the image is."""
        size = np.array(predictions.labels.shape, np.int64)
        return {"labels": predictions.labels.reshape(-1), "margins": predictions.margins.reshape(-1), "size": size}

    def from_arrays(self, arrays: Mapping[str, npt.NDArray[Any]]) -> ClassMask:
        """The mask of these arrays."""
        if set(arrays) != {"labels", "margins", "size"}:
            raise ValueError(f"a mask has labels, margins and size, not {sorted(arrays)}")
        height, width = arrays["size"].tolist()
        return ClassMask(arrays["labels"].reshape(height, width), arrays["margins"].reshape(height, width))

    def pair(self, reference: ClassMask, test: ClassMask) -> Pairing:
        """Pixels by their position; none of images of different sizes."""
        return pair_by_position(
            (reference.labels, test.labels),
            (reference.margins, test.margins),
            {"margin": (reference.margins / _STEPS, test.margins / _STEPS)},
            hair=1,
            sure=round(SURE_MARGIN * _STEPS),
            shifts=self.shifts,
        )

    def labels_of(self, sample: ImageSample, to_model: Int64) -> ClassMask | None:
        """The mask; pixels of classes that the model does not know are not judged.

        Raises:
            InputError: the mask's file is missing, or is not one.
        """
        return None if sample.mask is None else ClassMask.build(sample.mask.read(to_model))

    def agreement(self, truth: Iterable[ClassMask], results: Iterable[ClassMask]) -> dict[str, float]:
        """``mIoU`` over the classes that are there or found, and ``accuracy``; a mask of another size is wrong."""
        pairs = np.zeros((MOST_CLASSES, MOST_CLASSES + 1), np.int64)
        for wanted, given in zip(truth, results, strict=True):
            fits = wanted.labels.shape == given.labels.shape
            labels = given.labels if fits else np.full_like(wanted.labels, UNLABELED)
            pairs += confusion(wanted.labels.reshape(-1), labels.reshape(-1), MOST_CLASSES)[0]
        return agreement(pairs)


TASK = Segmentation2D()
