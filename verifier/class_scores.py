"""What two runs of a classifier say: rows belong together by position, the largest logit is the label."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shared.tasks.classification import ClassScores, softmax
from verifier.results import ResultKind

Float64 = npt.NDArray[np.float64]


def _labels(scores: ClassScores) -> npt.NDArray[np.int64]:
    """(N,) class with the largest logit."""
    return scores.logits.argmax(axis=1) if scores.logits.size else np.zeros(len(scores), np.int64)


def _distances(reference: ClassScores, test: ClassScores) -> Float64:
    """(N, M) distance of positions."""
    return np.abs(np.arange(len(reference), dtype=np.float64)[:, None] - np.arange(len(test))[None])


def _errors(reference: ClassScores, test: ClassScores) -> dict[str, Float64]:
    """Errors of K rows, (K,) each: ``probability``, largest difference of a class's probability."""
    if not len(reference):
        return {"probability": np.zeros(0)}
    difference = np.abs(softmax(test.logits) - softmax(reference.logits))
    return {"probability": difference.max(axis=1, initial=0.0)}


KIND: ResultKind[ClassScores] = ResultKind(
    type=ClassScores,
    errors=_errors,
    finite=lambda scores: np.asarray(np.isfinite(scores.logits).all(axis=1)),
    labels=_labels,
    scores=lambda scores: softmax(scores.logits).max(axis=1, initial=0.0) if len(scores) else np.zeros(0),
    distances=_distances,
    # Same position, or no pair.
    reach=0.5,
)
