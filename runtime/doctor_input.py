"""`runtime doctor-input`: does the network get the input that it was trained on? Others are tried, and compared.

A wrong input is no error: channels in another order, 0-1 in place of 0-255 or another mean give a tensor of the right
shape, and results that are worse or none. ``neighbors.py`` in a model's folder under ``runtime/models/`` says what else
networks of its kind are trained on: a function ``neighbors`` that gives `Neighbor`s for the parameters of a spec.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from runtime.backends import Session
from runtime.model import HostOnly, Model, ModelOptions, open_model
from runtime.pipeline import Pipeline, build_pipeline
from shared import plugins, tasks
from shared.answer import Answer
from shared.errors import UsageError
from shared.table import Table, number
from shared.tasks import Predictions, QuickMetric

if TYPE_CHECKING:
    from typing_extensions import Unpack

_PART = "neighbors"
# A run is suspected on so many samples, when its metric there is below the first, and another input's is above the
# second and at least this many times as good. YOLOX-Nano, 8 real images: 0.15 with its own input, 0.00 to 0.02 with
# values on another scale; 0.11 with red and blue swapped, which too few images can't tell from chance.
_SAMPLES = 8
_COLLAPSED = 0.3
_CLEARLY = 0.05
_TIMES = 2.0


@dataclass(frozen=True)
class Neighbor:
    """Another input that a network may have been trained on.

    Attributes:
        name: what is different, in a few words.
        parameters: those of the model spec, with this input.
        advice: where to say so, and what.
    """

    name: str
    parameters: Mapping[str, Any]
    advice: str


@dataclass(frozen=True)
class Subject:
    """The samples that inputs are tried on.

    Attributes:
        task: of the model.
        samples: all of them.
        labeled: positions of those with labels.
        metric: of the labeled ones; None where there are none.
    """

    task: tasks.Task[Any]
    samples: Sequence[Any]
    labeled: Sequence[int]
    metric: QuickMetric[Any] | None

    def trial(self, name: str, advice: str, answers: Sequence[Predictions]) -> Trial:
        """What an input gives, from the answers on all samples."""
        scores = [_scores(self.task.arrays(answer)) for answer in answers]
        return Trial(
            name,
            advice,
            None if self.metric is None else self.metric.score([answers[index] for index in self.labeled]),
            float(np.mean([len(each) for each in scores])),
            float(np.mean([each.max(initial=0.0) for each in scores])),
        )


@dataclass(frozen=True)
class Trial:
    """What a network makes of an input.

    Attributes:
        name, advice: as of the `Neighbor`.
        metric: the task's quick metric on the labeled samples; None without labels.
        results: how many a sample, in the mean.
        surest: the highest score of a sample, in the mean.
    """

    name: str
    advice: str
    metric: float | None
    results: float
    surest: float


def doctor_input(
    work: Path, backend_name: str, device: str, *, num_samples: int, **options: Unpack[ModelOptions]
) -> Answer:
    """Try the inputs that a model may have been trained on. Nothing is recorded. Returns what to print.

    Raises:
        UsageError: nothing else is known to try for this kind of model.
    """
    model = open_model(work, backend_name, device, **options)
    if plugins.part(plugins.PIPELINES, model.spec.model, _PART) is None:
        known = ", ".join(plugins.with_part(plugins.PIPELINES, _PART))
        raise UsageError(f"no other input is known for models of kind '{model.spec.model}'", hint=f"known: {known}")
    session, _ = model.load()
    count = len(model.dataset) if num_samples == -1 else min(num_samples, len(model.dataset))
    subject = _subject(model, count)
    own = subject.trial("as configured", "", _answers(_pipeline(model, session, model.spec.parameters), subject))
    others = _tried(model, session, subject)
    data = {
        "metric": None if subject.metric is None else subject.metric.name,
        "samples": len(subject.samples),
        "labeled": len(subject.labeled),
        "inputs": [asdict(trial) for trial in (own, *others)],
    }
    return Answer(f"{_table(model, subject, [own, *others]).text()}\n{_conclusion(subject, own, others)}", data)


def _scores(arrays: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """The scores of an answer, of all its tasks; none where results have none."""
    return np.concatenate(
        [np.zeros(0), *(array for name, array in arrays.items() if name.rpartition("/")[2] == "scores")]
    )


def _conclusion(subject: Subject, own: Trial, others: Sequence[Trial]) -> str:
    if subject.metric is None:
        return "None of the samples has labels. Scores alone don't decide: a network may be sure of nonsense."
    best = max(others, key=_quality)
    if _quality(best) <= _quality(own):
        return f"No other input gives a better {subject.metric.name}."
    return f"{_compared(subject, own, best)} To use it: {best.advice}"


def suspicions(model: Model, session: Session, count: int, predictions: Callable[[int], Predictions]) -> list[str]:
    """A line where the results of a run collapsed, and an input that another network of its kind has gives clearly
    better ones; the others are tried only then.

    Args:
        model: what was run.
        session: its components.
        count: how many samples were run, from the first.
        predictions: of the sample at a position.
    """
    if plugins.part(plugins.PIPELINES, model.spec.model, _PART) is None:
        return []
    subject = _subject(model, min(count, _SAMPLES))
    answers = [predictions(index) for index in range(len(subject.samples))]
    own = subject.trial("as configured", "", answers)
    if own.results if own.metric is None else own.metric >= _COLLAPSED:
        return []
    best = max(_tried(model, session, subject), key=_quality)
    clearly = best.results > 0 if own.metric is None else _quality(best) >= _TIMES * own.metric + _CLEARLY
    if not clearly:
        return []
    command = f"runtime doctor-input --work {model.workspace.root} --backend {model.backend}"
    return [f"is the input what the network was trained on? {_compared(subject, own, best)} {command} tries all"]


def _subject(model: Model, count: int) -> Subject:
    task = tasks.find(model.spec.task)
    to_model = task.label_map(model.spec.classes, model.dataset.classes)
    samples = [model.dataset.sample(index) for index in range(count)]
    labeled = [index for index, sample in enumerate(samples) if task.labels_of(sample, to_model) is not None]
    chosen = [samples[index] for index in labeled]
    metric = task.quick_metric(chosen, to_model, model.spec.classes) if labeled else None
    return Subject(task, samples, labeled, metric)


def _tried(model: Model, session: Session, subject: Subject) -> list[Trial]:
    """What the model's neighbors give, in their order."""
    module = plugins.part(plugins.PIPELINES, model.spec.model, _PART)
    trials = []
    for neighbor in module.neighbors(model.spec.parameters) if module is not None else ():
        pipeline = _pipeline(model, session, neighbor.parameters)
        trials.append(subject.trial(neighbor.name, neighbor.advice, _answers(pipeline, subject)))
    return trials


def _pipeline(model: Model, session: Session, parameters: Mapping[str, Any]) -> Pipeline:
    """The model with other parameters; its own steps in NumPy, which are the same as those on a GPU."""
    spec = model.spec.model_copy(update={"parameters": dict(parameters)})
    return build_pipeline(spec, HostOnly(session))


def _answers(pipeline: Pipeline, subject: Subject) -> list[Predictions]:
    return [pipeline.infer(pipeline.read(sample).data).predictions for sample in subject.samples]


def _quality(trial: Trial) -> float:
    return trial.surest if trial.metric is None else trial.metric


def _compared(subject: Subject, own: Trial, best: Trial) -> str:
    if subject.metric is None:
        given = f"{own.results:.1f} results a sample as configured, {best.results:.1f} with {best.name}"
        return f"{given}, on {len(subject.samples)} samples without labels."
    of_samples = f"on {len(subject.labeled)} labeled samples"
    return f"{subject.metric.name} {own.metric:.4f} as configured, {best.metric:.4f} with {best.name}, {of_samples}."


def _table(model: Model, subject: Subject, trials: Sequence[Trial]) -> Table:
    metric = "metric" if subject.metric is None else subject.metric.name
    rows = [
        [trial.name, number(trial.metric, 4), number(trial.surest, 3), number(trial.results, 1)] for trial in trials
    ]
    title = f"Inputs of {model.name}, {len(subject.samples)} samples, {len(subject.labeled)} of them labeled"
    return Table(title, ["input", metric, "highest score", "results a sample"], rows)
