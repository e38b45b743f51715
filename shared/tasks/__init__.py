"""Tasks: what models answer with, and how answers are stored, paired, compared and judged. One module a task.

A module ``shared/tasks/<task>.py`` with ``TASK``, a `Task`, is the task that configs and model specs call ``<task>``.
Another package adds one by an entry point of the group ``awml_deploy.tasks`` (`shared.plugins`). Nothing else in the
tools knows a task by its name; its metrics and its page of the report are modules of that name in the evaluator.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

import numpy as np
import numpy.typing as npt

from shared import plugins
from shared.arrays import Arrays, Bool, Int64
from shared.errors import InputError
from shared.pairing import Pairing

if TYPE_CHECKING:
    from typing_extensions import Self

#: What a model answers with on one sample: the container of its task.
Predictions = Any
#: The task where a config names none, as in AWML's first deploy configs.
DEFAULT = "detection3d"
Container = TypeVar("Container", bound=Sized)


@dataclass(frozen=True)
class ErrorKind:
    """An error of paired results, and how large it may be by default, by the arithmetic of the two runs.

    Attributes:
        unit: ``m``, ``rad``, ``px``; empty where there is none.
        exact: limit between runs in FP32.
        close: with TF32, whose significand has 11 bits.
        half: in FP16 and BF16.
        eight_bits: in INT8.
    """

    unit: str
    exact: float
    close: float
    half: float
    eight_bits: float


@dataclass(frozen=True)
class QuickMetric(Generic[Container]):
    """One number for how good answers on some samples are.

    Attributes:
        name: of the number.
        score: of the answers, one a sample: in [0, 1], larger is better.
    """

    name: str
    score: Callable[[Sequence[Container]], float]


class Task(ABC, Generic[Container]):
    """A task.

    Attributes:
        container: type of what a model answers with on one sample; its length is how many results it holds.
        view: what the samples of its data sets are, by name (`shared.data.views`).
        other_views: what they may be instead, where a format has no such view.
        errors: by name, the errors of paired results (`pair`). One called ``score`` is also how near to a score
            threshold results may come and go.
        shifts: by name, the signed differences of paired results, and the error that each is a part of.
        operating_score: results of lower scores are no use to anybody; None where all are of use.
        by_label: whether `pair` counts what each run says of each label (`Pairing.by_label`), which is then judged too.
        metric: name of the number of `agreement` that sums it up.
        optional_arrays: names of `arrays` that a file may lack, as files of earlier versions do; `from_arrays` does
            without them.
    """

    container: type[Container]
    view: ClassVar[str]
    other_views: ClassVar[tuple[str, ...]] = ()
    errors: ClassVar[Mapping[str, ErrorKind]]
    shifts: ClassVar[Mapping[str, str]] = {}
    operating_score: ClassVar[float | None] = None
    by_label: ClassVar[bool] = False
    metric: ClassVar[str]
    optional_arrays: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def empty(self) -> Container:
        """No results."""

    @abstractmethod
    def arrays(self, predictions: Container) -> Arrays:
        """A container as arrays, which is how runs store it.

        Returns:
            By name, the same names for every sample. Each array has at least one axis, the first may differ in length
            from array to array and sample to sample; the others have the same lengths in all samples of a run. An image
            of any size is stored flat, with its height and width as an array of their own.
        """

    @abstractmethod
    def from_arrays(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Container:
        """The container that `arrays` made arrays of.

        Raises:
            ValueError: the arrays are not those of a container.
        """

    @abstractmethod
    def pair(self, reference: Container, test: Container) -> Pairing:
        """What two runs answered on one sample, paired, with the errors that `errors` names."""

    def label_map(self, classes: Sequence[str], label_classes: Sequence[str]) -> Int64:
        """What `labels_of` needs to know of labels: for each label of a data set, that of the model, by name.

        Args:
            classes: class list of the model.
            label_classes: class list of the data set, of L classes.

        Returns:
            (L + 1,), -1 where the model has no such class; the last is -1.
        """
        from shared.data.labels import labels_in  # not above: data sets take containers of tasks

        return labels_in(classes, label_classes)

    @abstractmethod
    def labels_of(self, sample: Any, to_model: Int64) -> Container | None:
        """What is labeled in a sample of `view`, as a model would answer it; None where nothing is known.

        Args:
            sample: of a data set.
            to_model: what `label_map` gave.
        """

    @abstractmethod
    def agreement(self, truth: Iterable[Container], results: Iterable[Container]) -> dict[str, float]:
        """How well results agree with what is true, be that labels or another run's results.

        Args:
            truth: one container a sample.
            results: what is judged, of the same samples.

        Returns:
            By name, in [0, 1], larger is better; empty when there is nothing true.
        """

    def quick_metric(
        self,
        samples: Sequence[Any],
        to_model: Int64,
        classes: Sequence[str],  # noqa: ARG002 (tasks whose metric counts every class need them)
    ) -> QuickMetric[Container]:
        """What a model is weighed by while it is being quantized; `agreement` with the labels unless a task says more.

        Args:
            samples: labeled samples.
            to_model: as for `labels_of`.
            classes: class list of the model.
        """
        truths = [self.labels_of(sample, to_model) for sample in samples]
        labeled = [truth for truth in truths if truth is not None]
        return QuickMetric(self.metric, lambda results: self.agreement(labeled, results).get(self.metric, 0.0))


def find(task: str) -> Task[Any]:
    """The task called ``task``; with a plus, several at once (`shared.several_tasks`).

    Raises:
        InputError: there is none; names those that there are.
        EnvironmentLacks: what another package adds can't be imported.
    """
    from shared import several_tasks  # not above: it makes a task of tasks

    module = plugins.find(plugins.TASKS, task)
    if module is None and several_tasks.PLUS in task:
        return several_tasks.find(task)
    if module is None:
        raise InputError(f"there is no task '{task}'", hint=plugins.known(plugins.TASKS))
    return cast("Task[Any]", module.TASK)


def available() -> list[str]:
    """Names of all tasks."""
    return plugins.available(plugins.TASKS)


#: What Autoware's detectors keep by default.
KEPT_SCORE = 0.35


class Rows:
    """A container of parallel columns with one row a result. A dataclass that derives from it names their widths.

    ``WIDTHS``: columns that are matrices, by name; the others are vectors. None: any width.
    """

    WIDTHS: ClassVar[Mapping[str, int | None]] = {}

    def __post_init__(self) -> None:
        count, widths = len(self), self.WIDTHS
        for name in _columns(type(self)):
            actual = getattr(self, name).shape
            expected = (count, widths[name] or actual[-1]) if name in widths else (count,)
            if actual != expected:
                raise ValueError(f"{type(self).__name__}.{name} has shape {actual}, expected {expected}")

    def __len__(self) -> int:
        return len(getattr(self, _columns(type(self))[0]))

    @classmethod
    def columns(cls) -> list[str]:
        """Names of the columns, in order."""
        return list(_columns(cls))

    def arrays(self) -> Arrays:
        """The columns by name."""
        return {name: getattr(self, name) for name in _columns(type(self))}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The container of these columns.

        Raises:
            ValueError: other columns than its own, or columns that are not parallel.
        """
        if arrays.keys() != set(_columns(cls)):
            raise ValueError(f"{cls.__name__} has the columns {sorted(cls.columns())}, not {sorted(arrays)}")
        return cls(**arrays)

    def select(self, index: Bool | npt.NDArray[np.integer]) -> Self:
        """The rows at ``index``, a boolean mask (N,) or integer positions (K,)."""
        return type(self)(**{name: getattr(self, name)[index] for name in _columns(type(self))})


# Typed, as mypy takes the class for one without a hash where its instances have none.
_columns: Callable[..., tuple[str, ...]] = functools.cache(lambda kind: tuple(field.name for field in fields(kind)))


RowsT = TypeVar("RowsT", bound=Rows)


class RowsTask(Task[RowsT]):
    """A task whose container is `Rows`."""

    def arrays(self, predictions: RowsT) -> Arrays:
        """The columns."""
        return predictions.arrays()

    def from_arrays(self, arrays: Mapping[str, npt.NDArray[Any]]) -> RowsT:
        """The container of the columns."""
        return self.container.from_arrays(arrays)


def filled_column(
    count: int, values: npt.ArrayLike | None, default: float, dtype: type[np.generic]
) -> npt.NDArray[Any]:
    """(N,) values, or the default in every row."""
    return np.full(count, default, dtype) if values is None else np.asarray(values, dtype).reshape(count)
