"""Decoded results of two runs, matched and compared: boxes, class scores, whatever a task answers with.

Within a sample and label, the pair of results that are nearest is matched first, then the nearest of what is left, as
far as the kind of result reaches. That is symmetric in the two runs and does not look at scores, since scores are among
what is compared. What stays unmatched is matched once more regardless of the label: those are label flips.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from shared.tasks.classification import ClassScores
from shared.tasks.detection2d import Boxes2D
from shared.tasks.detection3d import Boxes3D
from verifier.histogram import Histogram

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Result = TypeVar("Result", Boxes3D, Boxes2D, ClassScores)

# Of the unmatched results of a side, so many scores are stored, the highest first: enough to judge again with any score
# margin, while a comparison of two unlike models still gives a small file.
_SCORES_KEPT = 1000


@dataclass(frozen=True)
class ResultKind(Generic[Result]):
    """How results of a kind are compared. ``N`` and ``M`` are the results of the two runs on one sample.

    Attributes:
        type: the container of `shared.tasks`.
        errors: (K,) per name, of K matched pairs; the first decides which sample is the worst. NaN: nothing to compare;
            infinite: known on one side only.
        finite: (N,) whether a result is free of NaN and infinities.
        labels: (N,) label of each.
        scores: (N,) confidence of each.
        distances: (N, M) how far apart they are.
        reach: pairs further apart are not the same thing.
    """

    type: type[Result]
    errors: Callable[[Result, Result], dict[str, Float64]]
    finite: Callable[[Result], npt.NDArray[np.bool_]]
    labels: Callable[[Result], Int64]
    scores: Callable[[Result], npt.NDArray[np.floating[Any]]]
    distances: Callable[[Result, Result], Float64]
    reach: float


class _Errors:
    """One error of the matched pairs so far."""

    def __init__(self) -> None:
        self.histogram = Histogram()
        self.known_once = 0
        self._sum = 0.0

    def add(self, values: Float64) -> None:
        """Take the errors of one sample; NaN: nothing to compare, infinite: known on one side only."""
        self.known_once += int(np.isinf(values).sum())
        finite = values[np.isfinite(values)]
        self.histogram.add(finite)
        self._sum += float(finite.sum())

    def summary(self) -> dict[str, Any]:
        """JSON; quantiles are upper bounds, 3.2 % above at most."""
        count = len(self.histogram)
        return {
            "pairs": count,
            "max": self.histogram.largest,
            "mean": self._sum / count,
            "quantiles": self.histogram.quantiles(),
            "histogram_octaves": self.histogram.octaves(),
        }


class _Scores:
    """How many there were, and the highest of them, descending."""

    def __init__(self) -> None:
        self.count = 0
        self.highest: list[float] = []

    def add(self, scores: npt.NDArray[np.floating[Any]]) -> None:
        """Take the scores of one sample."""
        self.count += len(scores)
        self.highest = sorted([*self.highest, *scores.tolist()], reverse=True)[:_SCORES_KEPT]


class ResultStatistics(Generic[Result]):
    """Statistics of matched and unmatched results over the samples seen so far; `add` feeds it.

    Memory does not grow with the samples: histograms, sums, and the highest scores of what found no partner.
    """

    def __init__(self, kind: ResultKind[Result]) -> None:
        self._kind: ResultKind[Result] = kind
        self._samples = self._reference_count = self._test_count = self._non_finite = self._label_flips = 0
        self._matched = 0
        self._reference_unmatched = _Scores()
        self._test_unmatched = _Scores()
        self._worst_sample: int | None = None
        self._worst_error = -1.0
        self._errors: dict[str, _Errors] = {}

    def add(self, sample: int, reference: Result, test: Result) -> None:
        """Compare one sample's results."""
        kind = self._kind
        self._samples += 1
        self._reference_count += len(reference)
        self._test_count += len(test)
        reference_finite, test_finite = kind.finite(reference), kind.finite(test)
        self._non_finite += int((~reference_finite).sum() + (~test_finite).sum())
        reference, test = reference.select(reference_finite), test.select(test_finite)

        distances = kind.distances(reference, test)
        within = distances <= kind.reach
        same_label = kind.labels(reference)[:, None] == kind.labels(test)[None]
        rows, columns = match_nearest(distances, within & same_label)
        self._matched += len(rows)
        errors = kind.errors(reference.select(rows), test.select(columns))
        for position, (name, values) in enumerate(errors.items()):
            self._errors.setdefault(name, _Errors()).add(values)
            if position == 0 and len(values) and values.max() > self._worst_error:
                self._worst_error, self._worst_sample = float(values.max()), sample

        within[rows] = False
        within[:, columns] = False
        flipped_rows, flipped_columns = match_nearest(distances, within)
        self._label_flips += len(flipped_rows)
        self._reference_unmatched.add(np.delete(kind.scores(reference), np.concatenate([rows, flipped_rows])))
        self._test_unmatched.add(np.delete(kind.scores(test), np.concatenate([columns, flipped_columns])))

    def summary(self) -> dict[str, Any]:
        """What is stored: JSON. ``reference_unmatched`` and ``test_unmatched`` hold the highest scores of each side."""
        return {
            "kind": self._kind.type.__name__,
            "samples": self._samples,
            "reference_count": self._reference_count,
            "test_count": self._test_count,
            "non_finite": self._non_finite,
            "matched": self._matched,
            "label_flips": self._label_flips,
            "known_once": sum(errors.known_once for errors in self._errors.values()),
            "num_reference_unmatched": self._reference_unmatched.count,
            "num_test_unmatched": self._test_unmatched.count,
            "reference_unmatched": self._reference_unmatched.highest,
            "test_unmatched": self._test_unmatched.highest,
            "worst_sample": self._worst_sample,
            "errors": {name: errors.summary() for name, errors in self._errors.items() if len(errors.histogram)},
        }


def match_nearest(distances: Float64, allowed: npt.NDArray[np.bool_]) -> tuple[Int64, Int64]:
    """Match results one to one, nearest pair first.

    Args:
        distances: (N, M) between results of the two runs.
        allowed: (N, M) pairs that may match.

    Returns:
        Rows and columns of the K pairs, (K,) each.
    """
    rows, columns = np.nonzero(allowed)
    free_rows, free_columns = np.ones(distances.shape[0], np.bool_), np.ones(distances.shape[1], np.bool_)
    pairs = []
    for pair in np.argsort(distances[rows, columns], kind="stable"):
        row, column = int(rows[pair]), int(columns[pair])
        if free_rows[row] and free_columns[column]:
            free_rows[row] = free_columns[column] = False
            pairs.append((row, column))
    matched = np.array(pairs, np.int64).reshape(-1, 2)
    return matched[:, 0], matched[:, 1]
