"""Metrics, one module a task, found by the task's name: ``detection3d`` is ``evaluator/metrics/detection3d.py``.

Another package adds a task through the entry point group ``awml_deploy.metrics``. What a task's module has stands in
`Metric`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

from evaluator.bootstrap import Copies
from evaluator.several_metrics import SeveralMetrics
from shared import plugins
from shared.config.check_sections import Evaluation
from shared.errors import InputError
from shared.runs import Run
from shared.several_tasks import PLUS, names_of
from shared.table import Table


class Truth(Protocol):
    """What is true of the labeled samples; the rest of it is the task's own."""

    @property
    def tokens(self) -> list[str]:
        """Tokens of the labeled samples, the frames of the metric."""

    @property
    def scenes(self) -> list[str]:
        """Per labeled sample, the drive it is from."""


class Metric(Protocol):
    """What the module of a task has; where it reads files of points or images, ``left_out`` as well
    (`evaluator.left_out`)."""

    @property
    def LOWER_IS_BETTER(self) -> frozenset[str]:  # noqa: N802 (a constant of the module)
        """Of the numbers of `headline`, those that are errors."""

    def ground_truth(
        self, samples: Iterable[Any], label_classes: Sequence[str], classes: Sequence[str]
    ) -> Truth | None:
        """What is true of the samples; None when none of them is labeled.

        Args:
            samples: the samples of the runs, in order.
            label_classes: class list that the samples' labels index.
            classes: class list of the model, which results are in.

        Raises:
            InputError: labels that no metric can be computed from.
        """

    def match(self, run: Run, truth: Any, classes: Sequence[str], evaluation: Evaluation) -> Any:
        """The results of a run laid beside the truth; the costly part, done once.

        Args:
            run: the run.
            truth: what `ground_truth` gave.
            classes: class list of the model.
            evaluation: the config's section, in which a task may have settings of its own.

        Raises:
            InputError: the run holds what no metric can be computed from.
        """

    def evaluate(self, matched: Any) -> dict[str, Any]:
        """The whole result, JSON."""

    def headline(self, result: dict[str, Any]) -> dict[str, float | None]:
        """The numbers that sum a result up, by name; None where one could not be computed."""

    def headline_names(self, classes: Sequence[str]) -> list[str]:
        """The names of `headline`, known before anything is computed: what gates may ask for."""

    def resample(self, matched: Any, copies: Copies) -> dict[str, float | None]:
        """The headline numbers if each frame counted ``copies`` (F,) times; those that intervals are wanted for."""

    def per_class(self, result: dict[str, Any]) -> dict[str, dict[str, float | None]]:
        """The numbers to compare models by class with: by class, then by name."""

    def tables(self, result: dict[str, Any]) -> list[Table]:
        """The result for a terminal."""


def find_metric(task: str) -> Metric:
    """The metric module of ``task``; of several tasks, their metrics together.

    Raises:
        InputError: there is none; the message lists the known ones.
    """
    module = plugins.find(plugins.METRICS, task)
    if module is None and PLUS in task:
        return SeveralMetrics({name: find_metric(name) for name in names_of(task)})
    if module is None:
        raise InputError(f"no metric for task '{task}'", where="evaluator", hint=plugins.known(plugins.METRICS))
    return cast(Metric, module)
