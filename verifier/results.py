"""Statistics of the paired results of two runs (`shared.pairing`), over the samples seen so far."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from shared.arrays import Bool, Float64, Int64
from shared.metrics.confusion import UNLABELED
from shared.pairing import Pairing, Scores
from shared.tasks import Container, Task
from verifier.histogram import Histogram

# Of the unmatched results of a side, so many scores are stored, the highest first: enough to judge again with any score
# margin, while a comparison of two unlike models still gives a small file.
_SCORES_KEPT = 1000


class _Errors:
    """The errors of the matched pairs so far, by name."""

    def __init__(self, names: Iterable[str]) -> None:
        self.known_once = 0
        self._histograms = {name: Histogram() for name in names}
        self._sums = dict.fromkeys(self._histograms, 0.0)

    def add(self, errors: Mapping[str, Float64], kept: Bool | None = None) -> None:
        """Take the errors of one sample; NaN: nothing to compare, infinite: known on one side only.

        Args:
            errors: (K,) by name.
            kept: (K,) which of the pairs count; None: all.
        """
        for name, finite in _finite(errors, kept):
            self._histograms[name].add(finite.values)
            self._sums[name] += finite.total
            self.known_once += finite.infinite

    def summary(self) -> dict[str, Any]:
        """JSON, without errors of which there is none; quantiles are upper bounds, 3.2 % above at most."""
        return {
            name: {
                "pairs": len(histogram),
                "max": histogram.largest,
                "mean": self._sums[name] / len(histogram),
                "quantiles": histogram.quantiles(),
                "histogram_octaves": histogram.octaves(),
            }
            for name, histogram in self._histograms.items()
            if len(histogram)
        }


class _Shifts:
    """The signed differences of the matched pairs so far, by name."""

    def __init__(self, names: Iterable[str]) -> None:
        self._counts = dict.fromkeys(names, 0)
        self._sums, self._squares = dict.fromkeys(self._counts, 0.0), dict.fromkeys(self._counts, 0.0)

    def add(self, shifts: Mapping[str, Float64], kept: Bool) -> None:
        """Take the differences of one sample, as errors; what is not finite has nothing to compare."""
        for name, finite in _finite(shifts, kept):
            self._counts[name] += len(finite.values)
            self._sums[name] += finite.total
            self._squares[name] += float(finite.values @ finite.values)

    def summary(self) -> dict[str, Any]:
        """JSON: the mean, and the standard error of the mean; without those of which there is none."""
        found = {}
        for name, count in self._counts.items():
            if count:
                mean = self._sums[name] / count
                variance = max(self._squares[name] / count - mean * mean, 0.0)
                found[name] = {"pairs": count, "mean": mean, "standard_error": math.sqrt(variance / count)}
        return found


class _Finite(NamedTuple):
    """The finite ones of some values, their sum, and how many are infinite."""

    values: Float64
    total: float
    infinite: int = 0


def _finite(columns: Mapping[str, Float64], kept: Bool | None) -> Iterator[tuple[str, _Finite]]:
    """By name, of (K,) values those that are kept. A step for all names takes a fraction of one for each."""
    if not columns:
        return
    rows = np.stack(list(columns.values()))
    if kept is not None and not kept.all():
        rows = rows.take(np.flatnonzero(kept), axis=1)
    finite = np.isfinite(rows)
    with np.errstate(invalid="ignore"):  # infinities of both signs
        totals = rows.sum(axis=1).tolist()
    for name, row, whole, total, own in zip(
        columns, rows, np.asarray(finite.all(axis=1)).tolist(), totals, finite, strict=True
    ):
        if whole:
            yield name, _Finite(row, total)
        else:
            values = row[own]
            yield name, _Finite(values, float(values.sum()), int(np.isinf(row).sum()))


class _Operating:
    """Statistics of the results that either run would keep at the operating score."""

    def __init__(self, score: float | None, task: Task[Any]) -> None:
        self.score = score
        self.matched = self.label_flips = 0
        self._errors, self._shifts = _Errors(task.errors), _Shifts(task.shifts)

    def add(self, pairing: Pairing) -> None:
        """Take one sample's pairs."""
        kept = self._kept(pairing.scores, pairing.matched)
        self.matched += int(kept.sum())
        self.label_flips += int(self._kept(pairing.flip_scores, pairing.label_flips).sum())
        self._errors.add(pairing.errors, kept)
        self._shifts.add(pairing.shifts, kept)

    def _kept(self, scores: Scores | None, count: int) -> Bool:
        if scores is None or self.score is None:
            return np.ones(count, np.bool_)
        return np.asarray(scores >= self.score)

    def summary(self) -> dict[str, Any]:
        """JSON; what has no partner is judged by the stored scores."""
        return {
            "score": self.score,
            "matched": self.matched,
            "label_flips": self.label_flips,
            "errors": self._errors.summary(),
            "shifts": self._shifts.summary(),
        }


class _Scores:
    """How many there were, and the highest of them, descending."""

    def __init__(self) -> None:
        self.count = 0
        self.highest: list[float] = []

    def add(self, scores: npt.NDArray[np.floating[Any]]) -> None:
        """Take the scores of one sample."""
        self.count += len(scores)
        if not len(scores):
            return
        self.highest = sorted([*self.highest, *scores.tolist()], reverse=True)[:_SCORES_KEPT]


class ResultStatistics:
    """Statistics of matched and unmatched results over the samples seen so far; `add` feeds it.

    Memory does not grow with the samples: histograms, sums, and the highest scores of what found no partner.

    Args:
        task: of the results.
        operating_score: results of lower scores are no use; None: as the task says.
        classes: names of the labels.
    """

    def __init__(
        self, task: Task[Container], operating_score: float | None = None, classes: Sequence[str] = ()
    ) -> None:
        self._task: Task[Any] = task
        self._classes = classes
        self._operating = _Operating(task.operating_score if operating_score is None else operating_score, task)
        self._samples = self._reference_count = self._test_count = self._non_finite = self._label_flips = 0
        self._matched = self._tied = self._below_ties = self._other_places = self._sure_flips = 0
        self._by_label: Int64 | None = None
        self._reference_alone = _Scores()
        self._test_alone = _Scores()
        self._worst_sample: int | None = None
        self._worst_error = -1.0
        self._errors = _Errors(task.errors)

    def add(self, sample: int, reference: Container, test: Container) -> None:
        """Compare one sample's results."""
        pairing = self._task.pair(reference, test)
        self._samples += 1
        self._reference_count += pairing.reference_count
        self._test_count += pairing.test_count
        self._non_finite += pairing.non_finite
        self._matched += pairing.matched
        self._tied += pairing.tied
        self._below_ties += pairing.below_ties
        self._label_flips += pairing.label_flips
        self._sure_flips += pairing.sure_flips
        self._other_places += not pairing.same_places
        if pairing.by_label is not None:
            self._by_label = pairing.by_label if self._by_label is None else self._by_label + pairing.by_label
        self._errors.add(pairing.errors)
        first = next(iter(pairing.errors.values()), None)
        if first is not None and len(first) and (largest := float(first.max())) > self._worst_error:
            self._worst_error, self._worst_sample = largest, sample
        self._operating.add(pairing)
        self._reference_alone.add(pairing.reference_alone)
        self._test_alone.add(pairing.test_alone)

    def summary(self) -> dict[str, Any]:
        """What is stored: JSON. ``reference_unmatched`` and ``test_unmatched`` hold the highest scores of each side;
        files of earlier versions lack ``tied`` and ``below_ties``. Tasks that count labels have ``by_label``, too:
        by class, how often both runs, the reference and the test say it; ``sure_flips``; and ``other_places``, samples
        of which the runs answered for other points or pixels.
        """
        return {
            "kind": self._task.container.__name__,
            "samples": self._samples,
            "reference_count": self._reference_count,
            "test_count": self._test_count,
            "non_finite": self._non_finite,
            "matched": self._matched,
            "tied": self._tied,
            "below_ties": self._below_ties,
            "label_flips": self._label_flips,
            "known_once": self._errors.known_once,
            "num_reference_unmatched": self._reference_alone.count,
            "num_test_unmatched": self._test_alone.count,
            "reference_unmatched": self._reference_alone.highest,
            "test_unmatched": self._test_alone.highest,
            "worst_sample": self._worst_sample,
            "errors": self._errors.summary(),
            "operating": self._operating.summary(),
            **(self._labels_summary() if self._task.by_label else {}),
        }

    def _labels_summary(self) -> dict[str, Any]:
        counts = np.zeros((0, 3), np.int64) if self._by_label is None else self._by_label
        names = {label: self._name(label) for label in np.flatnonzero(counts.any(axis=1)).tolist()}
        return {
            "other_places": self._other_places,
            "sure_flips": self._sure_flips,
            "by_label": {name: counts[label].tolist() for label, name in names.items()},
        }

    def _name(self, label: int) -> str:
        if label < len(self._classes):
            return self._classes[label]
        return "no class" if label == UNLABELED else f"label {label}"
