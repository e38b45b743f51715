"""Metrics of results that our runtime did not make: a vehicle's own node, another framework. One module a task.

``evaluator/score/<task>.py`` reads the files of a task. Another package adds one by an entry point of the group
``awml_deploy.score`` (`shared.plugins`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from shared import plugins
from shared.answer import Answer
from shared.errors import UsageError
from shared.files import write_json
from shared.table import Table


@dataclass(frozen=True)
class Results:
    """What `evaluator score` was given.

    Attributes:
        predictions: the file of results.
        truth: the file of ground truth, for tasks whose results don't hold it.
        classes: class names; empty: those of the files.
        metric: which of the task's metrics; None: its first.
        class_range: range in meters, one for all or one a class; None: the task's own.
        t4: how the T4 metric is computed, see `evaluator.boxes3d.settings.chosen`.
    """

    predictions: Path
    truth: Path | None = None
    classes: Sequence[str] = ()
    metric: str | None = None
    class_range: str | None = None
    t4: Mapping[str, Any] = field(default_factory=dict)


class Score(Protocol):
    """What the module of a task has."""

    def score(self, results: Results) -> tuple[dict[str, Any], list[Table]]:
        """Score files.

        Returns:
            The result, JSON, and what of it a terminal shows.

        Raises:
            UsageError: an option that the task needs, or one that makes no sense for these files.
            InputError: a file that is not what it should be.
        """


def score_files(task: str, results: Results, output: Path | None) -> Answer:
    """Score files of a task and write the result to ``output``. Returns what to print.

    Raises:
        UsageError: no such task, or as `Score.score`.
        InputError: as `Score.score`.
    """
    module = plugins.find(plugins.SCORES, task)
    if module is None:
        known = ", ".join(plugins.available(plugins.SCORES))
        raise UsageError(f"there are no files of task '{task}' to score", where="--task", hint=f"there are: {known}")
    result, tables = cast(Score, module).score(results)
    data = {"task": task, **result}
    if output is not None:
        write_json(output, data)
    return Answer("\n\n".join(table.text() for table in tables), data)


def refuse_options_of_boxes(results: Results) -> None:
    """For tasks that have one metric, and no boxes in space.

    Raises:
        UsageError: an option of those was given.
    """
    given = {"metric": results.metric, "class-range": results.class_range, **results.t4}
    for name, value in given.items():
        if value is not None:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} {value}", where="score", hint=f"{option} is for 3D boxes (--task detection3d)")


def needed_truth(results: Results) -> Path:
    """The file of ground truth.

    Raises:
        UsageError: none was given.
    """
    if results.truth is None:
        raise UsageError("this task needs ground truth", where="score", hint="give --ground-truth FILE")
    return results.truth
