"""The metrics of a model of several tasks: those of each, with the task in front of every name."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluator.bootstrap import Copies
from evaluator.left_out import left_out
from shared.arrays import Int64
from shared.config.check_sections import Evaluation
from shared.runs import Run
from shared.several_tasks import classes_of, parts_of, qualified
from shared.table import Table

if TYPE_CHECKING:
    from evaluator.metrics import Metric, Truth

_log = logging.getLogger("evaluate")


@dataclass(frozen=True)
class SeveralTruths:
    """What is true of the labeled samples, for each task.

    Attributes:
        parts: what the task's metric knows; tasks that nothing is labeled for are left out.
        rows: by task, for each of its labeled samples the position among those of any task.
        tokens, scenes: of the samples that are labeled for any task.
    """

    parts: Mapping[str, Truth]
    rows: Mapping[str, Int64]
    tokens: list[str]
    scenes: list[str]


@dataclass(frozen=True)
class SeveralMatched:
    """The results of a run laid beside the truth, for each task.

    Attributes:
        truth: the truth.
        parts: by task, what its metric made of both.
    """

    truth: SeveralTruths
    parts: Mapping[str, Any]


class SeveralMetrics:
    """See `evaluator.metrics.Metric`.

    Args:
        parts: the metrics, by task.
    """

    def __init__(self, parts: Mapping[str, Metric]) -> None:
        self._parts = parts
        self.LOWER_IS_BETTER = frozenset(
            f"{name}/{number}" for name, metric in parts.items() for number in metric.LOWER_IS_BETTER
        )

    def ground_truth(
        self, samples: Iterable[Any], label_classes: Sequence[str], classes: Sequence[str]
    ) -> SeveralTruths | None:
        """What is true for each task; None where nothing is labeled for any."""
        known = list(samples)
        found = {
            name: metric.ground_truth(known, label_classes, classes_of(name, classes))
            for name, metric in self._parts.items()
        }
        parts = {name: truth for name, truth in found.items() if truth is not None}
        if not parts:
            return None
        for name in sorted(found.keys() - parts.keys()):
            _log.warning("nothing is labeled for %s: it has no metrics", name)
        labeled = {token for truth in parts.values() for token in truth.tokens}
        kept = [sample for sample in known if sample.token in labeled]
        place = {sample.token: row for row, sample in enumerate(kept)}
        return SeveralTruths(
            parts=parts,
            rows={name: np.array([place[token] for token in truth.tokens], np.int64) for name, truth in parts.items()},
            tokens=[sample.token for sample in kept],
            scenes=[sample.scene for sample in kept],
        )

    def left_out(self, samples: Iterable[Any]) -> list[str]:
        """What each task leaves out, see `evaluator.left_out`."""
        known = list(samples)
        return [f"{name}/{part}" for name, metric in self._parts.items() for part in left_out(metric, known)]

    def match(self, run: Run, truth: SeveralTruths, classes: Sequence[str], evaluation: Evaluation) -> SeveralMatched:
        """Each task's results beside its truth."""
        runs = run.parts()
        parts = {
            name: self._parts[name].match(runs[name], part, classes_of(name, classes), evaluation)
            for name, part in truth.parts.items()
        }
        return SeveralMatched(truth, parts)

    def evaluate(self, matched: SeveralMatched) -> dict[str, Any]:
        """The result of each task under ``parts``."""
        return {"parts": {name: self._parts[name].evaluate(part) for name, part in matched.parts.items()}}

    def headline(self, result: dict[str, Any]) -> dict[str, float | None]:
        """Those of each task."""
        numbers: dict[str, float | None] = {}
        for name, part in parts_of(result).items():
            numbers |= qualified(name, self._parts[name].headline(dict(part)))
        return numbers

    def headline_names(self, classes: Sequence[str]) -> list[str]:
        """Of `headline`."""
        return [
            f"{name}/{number}"
            for name, metric in self._parts.items()
            for number in metric.headline_names(classes_of(name, classes))
        ]

    def resample(self, matched: SeveralMatched, copies: Copies) -> dict[str, float | None]:
        """The numbers of each task if each frame counted ``copies`` (F,) times."""
        numbers: dict[str, float | None] = {}
        for name, part in matched.parts.items():
            numbers |= qualified(name, self._parts[name].resample(part, copies[matched.truth.rows[name]]))
        return numbers

    def per_class(self, result: dict[str, Any]) -> dict[str, dict[str, float | None]]:
        """Those of each task."""
        numbers: dict[str, dict[str, float | None]] = {}
        for name, part in parts_of(result).items():
            numbers |= qualified(name, self._parts[name].per_class(dict(part)))
        return numbers

    def tables(self, result: dict[str, Any]) -> list[Table]:
        """Those of each task, one after the other."""
        return [table for name, part in parts_of(result).items() for table in self._parts[name].tables(dict(part))]
