"""Labels of points or pixels against what is true: counts, and the scores that follow from counts.

The scores are those of mmdet3d's ``seg_eval`` and, by distance, of AWML's ``T4SegMetric``. A class that is neither
there nor found has no score and no part in a mean; one that is found but not there has an IoU of 0, and no recall.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.arrays import Float64, Int64, UInt8

#: The label of what is not judged (in truth), or is said to be of no class (in an answer).
UNLABELED = 255
#: So many classes can be told apart by labels of 8 bits.
MOST_CLASSES = UNLABELED


def confusion(truth: UInt8, labels: UInt8, num_classes: int, groups: Int64 | None = None, num_groups: int = 1) -> Int64:
    """How often each label was given to what is truly of each class.

    Args:
        truth, labels: (N,) each, in 0 … C - 1 or `UNLABELED`. What is truly unlabeled is not counted.
        num_classes: C.
        groups: (N,) to count apart, in 0 … G - 1; None: all in one.
        num_groups: G.

    Returns:
        (G, C, C + 1), the truth in rows; the last column is of no class.
    """
    side = num_classes + 1
    cells = np.minimum(truth, num_classes).astype(np.int64)
    cells *= side
    cells += np.minimum(labels, num_classes)
    if groups is not None:
        cells += groups * side**2
    counts = np.bincount(cells, minlength=num_groups * side**2)
    return np.asarray(counts.reshape(num_groups, side, side)[:, :-1], np.int64)


@dataclass(frozen=True)
class Counts:
    """What the scores of classes follow from. All (..., C).

    Attributes:
        right: truly of the class and found.
        truths: truly of the class.
        found: said to be of the class, among what is judged.
    """

    right: npt.NDArray[np.number]
    truths: npt.NDArray[np.number]
    found: npt.NDArray[np.number]

    @staticmethod
    def of(matrix: Int64) -> Counts:
        """The counts of a `confusion` (..., C, C + 1)."""
        classes = matrix[..., :-1]
        return Counts(np.diagonal(classes, axis1=-2, axis2=-1), matrix.sum(axis=-1), classes.sum(axis=-2))

    @property
    def iou(self) -> Float64:
        """(..., C) intersection over union; NaN: neither there nor found."""
        return _share(self.right, self.truths + self.found - self.right)

    @property
    def precision(self) -> Float64:
        """(..., C) share of what was found that is right; NaN: nothing was found."""
        return _share(self.right, self.found)

    @property
    def recall(self) -> Float64:
        """(..., C) share of what is there that was found; NaN: it is not there."""
        return _share(self.right, self.truths)

    @property
    def f1(self) -> Float64:
        """(..., C) harmonic mean of precision and recall; NaN: neither there nor found.

        0 where nothing is right. T4SegMetric leaves such a class out of its mean, as if it were not there.
        """
        return _share(2 * self.right, self.truths + self.found)

    @property
    def accuracy(self) -> float | None:
        """Share of what is judged that is right; None: nothing is judged."""
        total = self.truths.sum()
        return float(self.right.sum() / total) if total else None


def mean(scores: Float64) -> float | None:
    """The mean of the scores (C,) that there are; None without any."""
    known = scores[~np.isnan(scores)]
    return float(known.mean()) if len(known) else None


def _share(part: npt.NDArray[np.number], whole: npt.NDArray[np.number]) -> Float64:
    shares = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=shares, where=np.asarray(whole) > 0)
    return shares


def agreement(pairs: Int64) -> dict[str, float]:
    """``mIoU`` and ``accuracy`` of a `confusion` (C, C + 1); empty when nothing is judged."""
    counts = Counts.of(pairs)
    overlap, accuracy = mean(counts.iou), counts.accuracy
    return {} if overlap is None or accuracy is None else {"mIoU": overlap, "accuracy": accuracy}


def of_labels(results: Mapping[str, Any]) -> str:
    """What a stored comparison of labels says of them (`verifier.results.ResultStatistics.summary`), in words."""
    words = f", {results['sure_flips']} of them sure; {results['tied']} decided by a hair"
    if not results["by_label"]:
        return words
    right, truths, found = np.array(list(results["by_label"].values()), np.int64).T
    overlaps = Counts(right, truths, found).iou
    worst = int(overlaps.argmin())
    return f"{words}; least IoU of a class {overlaps[worst]:.4f} ({list(results['by_label'])[worst]})"
