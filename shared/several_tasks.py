"""A model of several tasks: its task is called by their names with a plus between, ``detection2d+segmentation2d``.

Its answer to a sample is that of each of them. Names of arrays, errors, metrics and classes have the task in front
(``segmentation2d/road``), since the tasks' own may be the same. Each part is paired, judged and scored by itself, so
that a million pixels don't outvote ten boxes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from shared import tasks
from shared.arrays import Arrays, Float64, Int64
from shared.errors import InputError
from shared.pairing import Pairing, Scores
from shared.tasks import QuickMetric, Task

PLUS = "+"
Value = TypeVar("Value")


@dataclass(frozen=True)
class Answers:
    """What a model of several tasks answers with on one sample.

    Attributes:
        parts: the container of each task, by the task's name.
    """

    parts: Mapping[str, Any]

    def __len__(self) -> int:
        """Results of all tasks."""
        return sum(map(len, self.parts.values()))


def names_of(task: str) -> list[str]:
    """Names of the tasks that a task is made of: its own, where it is one alone."""
    return task.split(PLUS)


def qualified(part: str, values: Mapping[str, Value]) -> dict[str, Value]:
    """The same values, their names with the task in front; of a single task, whose name is empty, as they are."""
    return {f"{part}/{name}": value for name, value in values.items()} if part else dict(values)


def of_part(part: str, values: Mapping[str, Value]) -> dict[str, Value]:
    """The reverse: of the values of several tasks those of one, without the task in their names."""
    if not part:
        return dict(values)
    return {name.removeprefix(f"{part}/"): value for name, value in values.items() if name.startswith(f"{part}/")}


def classes_of(part: str, classes: Sequence[str]) -> list[str]:
    """The class list of one of several tasks, from that of a model of all of them."""
    return list(of_part(part, dict.fromkeys(classes)))


def qualified_classes(classes: Mapping[str, Sequence[str]]) -> list[str]:
    """The class list of a model of several tasks, from that of each."""
    return [f"{part}/{name}" for part, names in classes.items() for name in names]


def parts_of(results: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Stored statistics of results by the task's name; of a model of one task, by an empty name.

    Args:
        results: of several tasks under ``parts``.
    """
    parts: Mapping[str, Mapping[str, Any]] = results.get("parts", {"": results})
    return parts


class SeveralTasks(Task[Answers]):
    """Several tasks at once.

    Args:
        parts: the tasks, by name.
    """

    container = Answers

    def __init__(self, parts: Mapping[str, Task[Any]]) -> None:
        self.parts = parts

    def empty(self) -> Answers:
        """No results of any task."""
        return Answers({name: part.empty() for name, part in self.parts.items()})

    def arrays(self, predictions: Answers) -> Arrays:
        """Those of each task."""
        arrays: Arrays = {}
        for name, part in self.parts.items():
            arrays |= qualified(name, part.arrays(predictions.parts[name]))
        return arrays

    def from_arrays(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Answers:
        """The answers of these arrays."""
        return Answers({name: part.from_arrays(of_part(name, arrays)) for name, part in self.parts.items()})

    def pair(self, reference: Answers, test: Answers) -> Pairing:
        """The pairs of each task, one task after the other; of the others' there is nothing to compare."""
        pairings = {name: part.pair(reference.parts[name], test.parts[name]) for name, part in self.parts.items()}
        each = list(pairings.values())
        return Pairing(
            reference_count=sum(pairing.reference_count for pairing in each),
            test_count=sum(pairing.test_count for pairing in each),
            non_finite=sum(pairing.non_finite for pairing in each),
            matched=sum(pairing.matched for pairing in each),
            errors=_joined(pairings, lambda pairing: pairing.errors),
            label_flips=sum(pairing.label_flips for pairing in each),
            reference_alone=np.concatenate([pairing.reference_alone for pairing in each]),
            test_alone=np.concatenate([pairing.test_alone for pairing in each]),
            tied=sum(pairing.tied for pairing in each),
            below_ties=sum(pairing.below_ties for pairing in each),
            sure_flips=sum(pairing.sure_flips for pairing in each),
            scores=np.concatenate([_known(pairing.scores, pairing.matched) for pairing in each]),
            flip_scores=np.concatenate([_known(pairing.flip_scores, pairing.label_flips) for pairing in each]),
            shifts=_joined(pairings, lambda pairing: pairing.shifts),
        )

    def label_map(self, classes: Sequence[str], label_classes: Sequence[str]) -> Int64:
        """(P, L + 1) a row for each task."""
        rows = [part.label_map(classes_of(name, classes), label_classes) for name, part in self.parts.items()]
        return np.stack(rows)

    def labels_of(self, sample: Any, to_model: Int64) -> Answers | None:
        """What is labeled for each task; None where nothing is for one of them."""
        labels = {
            name: part.labels_of(sample, row) for (name, part), row in zip(self.parts.items(), to_model, strict=True)
        }
        return None if any(each is None for each in labels.values()) else Answers(labels)

    def agreement(self, truth: Iterable[Answers], results: Iterable[Answers]) -> dict[str, float]:
        """That of each task."""
        wanted, given = list(truth), list(results)
        found: dict[str, float] = {}
        for name, part in self.parts.items():
            pair = ([answers.parts[name] for answers in side] for side in (wanted, given))
            found |= qualified(name, part.agreement(*pair))
        return found

    def quick_metric(self, samples: Sequence[Any], to_model: Int64, classes: Sequence[str]) -> QuickMetric[Answers]:
        """The mean of the tasks' own."""
        metrics = {
            name: part.quick_metric(samples, row, classes_of(name, classes))
            for (name, part), row in zip(self.parts.items(), to_model, strict=True)
        }

        def score(results: Sequence[Answers]) -> float:
            of_parts = [metric.score([answers.parts[name] for answers in results]) for name, metric in metrics.items()]
            return float(np.mean(of_parts))

        names = " and ".join(f"{name}/{metric.name}" for name, metric in metrics.items())
        return QuickMetric(f"mean of {names}", score)


def _joined(pairings: Mapping[str, Pairing], values: Callable[[Pairing], Mapping[str, Float64]]) -> dict[str, Float64]:
    """Values of the pairs of one task, NaN for those of the tasks before and after it."""
    joined, before, total = {}, 0, sum(pairing.matched for pairing in pairings.values())
    for part, pairing in pairings.items():
        after = total - before - pairing.matched
        for name, own_values in qualified(part, values(pairing)).items():
            joined[name] = np.pad(own_values, (before, after), constant_values=np.nan)
        before += pairing.matched
    return joined


def _known(scores: Scores | None, count: int) -> Scores:
    """Scores; the best where results have none: all of them are of use."""
    return np.ones(count) if scores is None else scores


@functools.cache
def find(task: str) -> SeveralTasks:
    """The task that ``task`` names, with a plus.

    Raises:
        InputError: one of its parts is no task, stands there twice, or takes other samples than the rest.
    """
    names = names_of(task)
    parts = {name: tasks.find(name) for name in names}
    if len(parts) < len(names):
        raise InputError(f"'{task}' names a task twice")
    views = {name: part.view for name, part in parts.items()}
    if len(set(views.values())) > 1:
        takes = ", ".join(f"{name} takes samples of view {view}" for name, view in views.items())
        raise InputError(f"the tasks of '{task}' don't take the same samples: {takes}")

    class Named(SeveralTasks):
        view = views[names[0]]
        errors: ClassVar = {key: kind for name in names for key, kind in qualified(name, parts[name].errors).items()}
        shifts: ClassVar = {
            f"{name}/{shift}": f"{name}/{error}" for name in names for shift, error in parts[name].shifts.items()
        }
        by_label = any(part.by_label for part in parts.values())
        metric = f"mean of {' and '.join(f'{name}/{parts[name].metric}' for name in names)}"
        optional_arrays = frozenset(f"{name}/{array}" for name in names for array in parts[name].optional_arrays)

    return Named(parts)
