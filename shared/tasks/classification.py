"""Classification: a logit for each class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from shared.arrays import Bool, Float32, Float64, Int64
from shared.pairing import Pairing
from shared.tasks import ErrorKind, Rows, RowsTask

if TYPE_CHECKING:
    from shared.data.camera_pairs import CameraPair
    from shared.data.crops import ImageCrop


@dataclass(frozen=True)
class ClassScores(Rows):
    """What a classifier says of one sample: a row for each thing that was classified, one as a rule.

    Attributes:
        logits: (N, C) float32, one column a class, before the softmax.
        labels: (N,) int64, the class that was decided for: the pipeline's own decision, which need not be the largest
            logit.
    """

    logits: Float32
    labels: Int64

    WIDTHS: ClassVar[Mapping[str, int | None]] = {"logits": None}

    @staticmethod
    def empty() -> ClassScores:
        """Nothing classified."""
        return ClassScores(np.zeros((0, 0), np.float32), np.zeros(0, np.int64))

    @staticmethod
    def build(logits: npt.ArrayLike, labels: npt.ArrayLike | None = None) -> ClassScores:
        """Scores from anything array-like, (C,) or (N, C); labels default to the largest logit."""
        rows = np.atleast_2d(np.asarray(logits, np.float32))
        if labels is None:
            labels = rows.argmax(axis=1) if rows.size else np.zeros(len(rows))
        return ClassScores(rows, np.asarray(labels, np.int64).reshape(len(rows)))


class Classification(RowsTask[ClassScores]):
    """Classification.

    Rows of two runs belong together by their position. ``probability`` is the largest difference of the probability of
    a class. Shifts are of the probability of the reference's class (``confidence``) and of the first class.
    """

    container = ClassScores
    view = "camera_pair"
    other_views = ("image_crop",)
    errors: ClassVar = {"probability": ErrorKind("", 0.001, 0.01, 0.02, 0.1)}
    shifts: ClassVar = {"confidence": "probability", "first_class": "probability"}
    metric = "accuracy"
    optional_arrays = frozenset({"labels"})

    def empty(self) -> ClassScores:
        """Nothing classified."""
        return ClassScores.empty()

    def from_arrays(self, arrays: Mapping[str, npt.NDArray[Any]]) -> ClassScores:
        """The container of the columns; without labels, the largest logits decide."""
        if set(arrays) == {"logits"}:
            return ClassScores.build(arrays["logits"])
        return super().from_arrays(arrays)

    def pair(self, reference: ClassScores, test: ClassScores) -> Pairing:
        """Rows by their position, a label flip where two of them decide for different classes."""
        both = min(len(reference), len(test))
        whole, other_whole = _finite(reference), _finite(test)
        paired = whole[:both] & other_whole[:both]
        same = paired & (reference.labels[:both] == test.labels[:both])
        alone, other_alone = whole.copy(), other_whole.copy()
        alone[:both] &= ~paired
        other_alone[:both] &= ~paired
        decided = reference.labels[:both][same]
        differences = _probability_differences(reference.logits[:both][same], test.logits[:both][same])
        return Pairing(
            reference_count=len(reference),
            test_count=len(test),
            non_finite=int((~whole).sum() + (~other_whole).sum()),
            matched=int(same.sum()),
            errors={"probability": np.abs(differences).max(axis=1, initial=0.0)},
            label_flips=int((paired & ~same).sum()),
            reference_alone=_confidences(reference.logits[alone]),
            test_alone=_confidences(test.logits[other_alone]),
            shifts={
                "confidence": np.take_along_axis(differences, decided[:, None], axis=1)[:, 0],
                "first_class": differences[:, 0],
            },
        )

    def labels_of(self, sample: CameraPair | ImageCrop, to_model: Int64) -> ClassScores:
        """The label, and logits that say it. A model of this task has the data set's classes, in its own order."""
        logits = np.zeros((1, len(to_model) - 1), np.float32)
        logits[0, to_model[sample.label]] = 1.0
        return ClassScores.build(logits, to_model[[sample.label]])

    def agreement(self, truth: Iterable[ClassScores], results: Iterable[ClassScores]) -> dict[str, float]:
        """``accuracy``: share of the true rows that the results decide alike."""
        total = right = 0
        for wanted, given in zip(truth, results, strict=True):
            both = min(len(wanted), len(given))
            total += len(wanted)
            right += int((wanted.labels[:both] == given.labels[:both]).sum())
        return {"accuracy": right / total} if total else {}


def _finite(scores: ClassScores) -> Bool:
    """(N,) rows without NaN and infinities."""
    return np.asarray(np.isfinite(scores.logits).all(axis=1))


def _probability_differences(reference: Float32, test: Float32) -> Float64:
    """(K, C) differences of the classes' probabilities, of logits (K, C)."""
    if not len(reference):
        return np.zeros((0, 1))
    return np.asarray(softmax(test) - softmax(reference))


def _confidences(logits: Float32) -> Float64:
    """(N,) probability of the likeliest class, of logits (N, C)."""
    return np.asarray(softmax(logits).max(axis=1, initial=0.0)) if len(logits) else np.zeros(0)


def softmax(logits: npt.ArrayLike) -> Float64:
    """(N, C) probabilities of logits (N, C), in double precision."""
    values = np.asarray(logits, np.float64)
    exponentials = np.exp(values - values.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


TASK = Classification()
