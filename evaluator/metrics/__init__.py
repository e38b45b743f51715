"""Metrics, one module a task, found by the task's name: ``detection3d`` is ``evaluator/metrics/detection3d.py``.

Another package adds a task through the entry point group ``awml_deploy.metrics``. A task's module has four functions:

- ``ground_truth(samples, label_classes, classes)`` -> the truth of the samples, in a form of the task's own;
- ``evaluate(run, truth, classes)`` -> the result, JSON;
- ``headline(result)`` -> the few numbers to show and to gate on, by name;
- ``tables(result)`` -> what to print.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

from shared.data.types import Sample
from shared.errors import UsageError
from shared.runs import Run
from shared.table import Table

ENTRY_POINTS = "awml_deploy.metrics"


class Metric(Protocol):
    """What the module of a task offers."""

    def ground_truth(self, samples: Iterable[Sample], label_classes: Sequence[str], classes: Sequence[str]) -> Any:
        """What is true of the samples; None when none of them is labelled.

        Args:
            samples: the samples of the runs, in order.
            label_classes: class list that the samples' labels index.
            classes: class list of the model, which results are in.

        Raises:
            InputError: labels that no metric can be computed from.
        """

    def evaluate(self, run: Run, truth: Any, classes: Sequence[str]) -> dict[str, Any]:
        """Score a run.

        Raises:
            InputError: the run holds what no metric can be computed from.
        """

    def headline(self, result: dict[str, Any]) -> dict[str, float | None]:
        """The numbers that sum a result up, by name."""

    def tables(self, result: dict[str, Any]) -> list[Table]:
        """The result for a terminal."""


def find_metric(task: str) -> Metric:
    """The metric module of ``task``.

    Raises:
        UsageError: there is none; names those that there are.
    """
    own = {module.name for module in pkgutil.iter_modules(__path__)}
    if task in own:
        return cast(Metric, importlib.import_module(f"{__name__}.{task}"))
    plugins = {entry.name: entry for entry in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    if task in plugins:
        return cast(Metric, plugins[task].load())
    raise UsageError(
        f"no metric for task '{task}'",
        where="evaluator",
        hint=f"there are: {', '.join(sorted(own | plugins.keys()))}; see docs/extending.md to add one",
    )
