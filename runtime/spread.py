"""`runtime run --cluster`: the samples of a run, spread over the workers of a cluster.

Each worker holds the loaded model and answers one range of samples after another. It leaves the answers of a range as a
piece of the run (`shared.pieces`) on the shared volume; the command takes the pieces in, and alone writes the run.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from runtime.answers import answering
from runtime.backends import artifact_kind, backend
from runtime.model import Model, ModelOptions, open_model
from runtime.pace import Pace, side_by_side
from runtime.recording import alerts_of
from shared import cuda, trust
from shared.cluster import MOST_DEATHS, Need, Outcome, Workers, connect
from shared.errors import DeployError, EnvironmentLacks, InputError, UsageError
from shared.logs import event
from shared.pieces import Contents, Piece, PieceHeader, PieceWriter
from shared.progress import progress
from shared.runs import Run, RunHeader, RunWriter
from shared.work_path import WorkPath

_log = logging.getLogger("runtime")

# A range takes about so long: far longer than what it costs to hand one out, and little is lost with a worker.
_SECONDS_OF_RANGE = 3.0
_FIRST_RANGE = 8
_LONGEST_RANGE = 4096
# Samples that can't be answered are named, and the others answered; so many are no accident.
_MOST_FAILURES = 16


@dataclass(frozen=True)
class Order:
    """What the workers are to run, and what every node must agree on.

    Attributes:
        work, backend, device, options, readers: see `runtime.model.open_model` and `runtime.answers.answering`;
            the workspace by its absolute path.
        name: of the run.
        versions, inputs: of the model, as the command has them.
        vouched_for: sha256 of the artifacts that may run, which the command has checked.
        samples: how many the run has.
        raw_samples: of how many of them, from the first, the raw outputs are kept.
        pieces: where the pieces go.
    """

    work: Path
    backend: str
    device: str
    options: ModelOptions
    readers: int | None
    name: str
    versions: dict[str, str]
    inputs: dict[str, str]
    vouched_for: frozenset[str]
    samples: int
    raw_samples: int
    pieces: str

    @staticmethod
    def of(
        model: Model,
        options: ModelOptions,
        readers: int | None,
        samples: int,
        raw_samples: range,
        pieces: WorkPath,
    ) -> Order:
        """The order to run a model that this process may run.

        Raises:
            ManifestError: a file of it was not made here, and is not trusted.
            UsageError: on a GPU that is not the first; a worker sees none but its own.
        """
        if model.device.index:
            raise UsageError(
                f"--device {model.device} with --cluster", hint="give cuda: each worker has a GPU of its own"
            )
        return Order(
            model.workspace.root.absolute(),
            model.backend,
            str(model.device),
            options,
            readers,
            model.name,
            model.versions(),
            model.inputs(),
            frozenset(model.require_trusted().values()),
            samples,
            len(raw_samples),
            pieces.relative,
        )

    @property
    def uses_gpu(self) -> bool:
        """Whether a worker takes a GPU."""
        return self.device != "cpu"


# -- tasks, in the workers --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Describe:
    """Asks a worker what is in force there, for the header of the run."""


@dataclass(frozen=True)
class Span:
    """Asks for the answers on a range of samples, as a piece.

    Attributes:
        header: of the piece; what is in force for the run must be in the worker.
        attempt: how often the range was tried before; each leaves a piece of its own.
    """

    header: PieceHeader
    attempt: int = 0

    @property
    def samples(self) -> range:
        """Positions in the data set."""
        return self.header.samples

    @property
    def folder(self) -> str:
        """Of its piece, in the run's folder of pieces."""
        return f"cluster-{self.samples.start:09d}-{self.samples.stop:09d}-{self.attempt}"

    def __len__(self) -> int:
        return len(self.samples)


@dataclass(frozen=True)
class Answered:
    """How fast a range was answered, and with what.

    Attributes:
        seconds: that it took.
        pace: see `runtime.pace.Pace.result`; None where all its samples were answered before.
        contents: of the piece.
    """

    seconds: float
    pace: dict[str, Any] | None
    contents: Contents


@dataclass(frozen=True)
class Conclude:
    """Asks what a user must know of the finished run in the folder ``run``."""

    run: str


Task = Describe | Span | Conclude


class RangeWorker:
    """A loaded model in a process of a cluster."""

    def __init__(self, order: Order) -> None:
        trust.vouch_for(order.vouched_for)
        self._order = order
        self._model = open_model(order.work, order.backend, order.device, **order.options)
        # For as long as the process lives.
        self._open = contextlib.ExitStack()
        self._loaded = self._open.enter_context(answering(self._model, order.samples, readers=order.readers))
        self._loaded.warm_up(0)

    def do(self, task: Task) -> Any:
        """The details of the run; an `Answered`; the alerts of a run."""
        if isinstance(task, Describe):
            return self._loaded.details
        if isinstance(task, Span):
            return self._answer(task)
        run = Run.open(WorkPath(self._order.work, task.run).checked())
        return alerts_of(self._model, self._loaded, run)

    def _answer(self, span: Span) -> Answered:
        _require_same("what is in force", span.header.run.details, self._loaded.details)
        started = time.perf_counter()
        folder = WorkPath(self._order.work, f"{self._order.pieces}/{span.folder}")
        writer = PieceWriter.open(folder, span.header)
        pace = Pace()
        for answer in self._loaded.answers(writer.missing(), range(self._order.raw_samples), pace):
            writer.commit(answer.index, answer.predictions, answer.latency_ms, answer.counters, answer.raw)
        result = pace.result() if pace.samples else None
        contents = writer.finish()
        return Answered(time.perf_counter() - started, result, contents)


def open_worker(order: Order) -> Callable[[Task], Any]:
    """Load the model in a process of a cluster."""
    return RangeWorker(order).do


def check_node(order: Order) -> None:
    """See whether a node can run the model: before any sample is run anywhere.

    Raises:
        EnvironmentLacks: another version of a package, other files, no GPU, or not the one of the engines.
        InputError: the data set is not there.
    """
    model = open_model(order.work, order.backend, order.device, **order.options)
    _require_same("versions", order.versions, model.versions())
    _require_same("inputs", order.inputs, model.inputs())
    model.dataset.sample(0)
    if order.uses_gpu:
        _check_gpus(model)


def _check_gpus(model: Model) -> None:
    gpus = cuda.find_gpus()
    if not gpus:
        raise EnvironmentLacks("CUDA finds no GPU", hint="see nvidia-smi there; Ray counts what `ray start` was told")
    if artifact_kind(backend(model.backend)) != "engine":
        return
    used = set(backend(model.backend).artifacts(model.workspace, model.spec, model.target).values())
    for record in model.workspace.manifest().results.get("engines", {}).values():
        built = record.get("architecture")
        if record["engine"] not in used or built is None or record.get("hardware_compatibility", "none") != "none":
            continue
        for gpu in gpus:
            if gpu.architecture.replace("_", "") != built:
                raise EnvironmentLacks(
                    f"{record['engine']} is built for {built}, the {gpu.name} is {gpu.architecture.replace('_', '')}",
                    hint="take nodes with one kind of GPU, or build engines for each",
                )


def _require_same(what: str, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            raise EnvironmentLacks(
                f"{what} differ: {name} is {theirs.get(name)} there, {ours.get(name)} for the run",
                hint="install the same on all nodes and here",
            )


# -- the command ------------------------------------------------------------------------------------------------------


class Spread:
    """The samples of a run on the workers of a cluster. Use `spreading`."""

    def __init__(self, workers: Workers[Task, Any], order: Order, details: dict[str, Any]) -> None:
        self.details = details
        self._workers = workers
        self._order = order
        self._failures: dict[int, DeployError] = {}

    def commit(self, writer: RunWriter) -> dict[str, Any] | None:
        """Have every sample answered that is not committed yet; how fast, see `runtime.pace`.

        Raises:
            DeployError: samples that can't be answered, when all others are; see `shared.cluster` for the others.
        """
        missing = writer.missing()
        cutter = Cutter(missing, self._workers, writer.header)
        total, name = self._order.samples, self._order.name
        if 0 < len(missing) < total:
            _log.info("%s: goes on at sample %d, %d of %d are done", name, missing[0], total - len(missing), total)
        paces: list[dict[str, Any]] = []
        started, taking_in = time.perf_counter(), 0.0
        with progress(name, total, done=total - len(missing)) as advance:
            for outcome in self._workers.outcomes(cutter.next):
                span = outcome.task
                assert isinstance(span, Span), "only ranges are asked for here"
                answered = outcome.value
                if not isinstance(answered, Answered):
                    self._again(writer.header, span, outcome)
                    continue
                began = time.perf_counter()
                if self._adopt(writer, span, answered, outcome):
                    cutter.learn(len(span), answered.seconds)
                    paces += [answered.pace] if answered.pace else []
                    advance(len(span), self._workers.at_work)
                taking_in += time.perf_counter() - began
        self._require_all(total)
        return side_by_side(paces, time.perf_counter() - started, taking_in)

    def alerts(self, run: Run) -> list[str]:
        """What a user must know of the finished run."""
        folder = run.folder.absolute().relative_to(self._order.work)
        return list(self._ask(Conclude(str(folder))))

    def _adopt(self, writer: RunWriter, span: Span, answered: Answered, outcome: Outcome[Task, Any]) -> bool:
        """Take a piece in; where it is not whole, its node has another volume, and is not used any more."""
        try:
            folder = WorkPath(self._order.work, f"{self._order.pieces}/{span.folder}")
            writer.adopt(Piece.open(folder, answered.contents))
        except InputError as error:
            hint = "is it on the shared volume there?"
            lack = EnvironmentLacks(f"what it wrote is not here ({error})", where=f"node {outcome.node}", hint=hint)
            self._workers.refuse(outcome, lack)
            return False
        return True

    def _again(self, run: RunHeader, span: Span, outcome: Outcome[Task, Any]) -> None:
        """Give a range again whose worker died, or that has a sample which can't be answered: in halves, to find it."""
        error, samples = outcome.error, span.samples
        assert error is not None
        if outcome.died:
            _log.warning("%s; samples %d to %d are run again", error, samples[0], samples[-1])
        if len(span) > 1:
            for half in (samples[: len(span) // 2], samples[len(span) // 2 :]):
                self._workers.give(Span(PieceHeader.of(run, half)))
        elif outcome.died and span.attempt + 1 < MOST_DEATHS:
            self._workers.give(Span(span.header, span.attempt + 1))
        else:
            (index,) = samples
            self._failures[index] = error
            _log.warning("sample %d: %s", index, error, extra=event(sample=error.sample or str(index)))
            if len(self._failures) >= _MOST_FAILURES:
                self._require_all(self._order.samples)

    def _require_all(self, total: int) -> None:
        if not self._failures:
            return
        index, first = min(self._failures.items())
        raise type(first)(
            f"{len(self._failures)} of {total} samples can't be answered: {', '.join(map(str, sorted(self._failures)))}"
            f"; sample {index}: {first}",
            hint="the others are kept; run the command again to try these again",
        )

    def _ask(self, task: Task) -> Any:
        self._workers.give(task)
        for outcome in self._workers.outcomes():
            if outcome.error is not None:
                raise outcome.error
            return outcome.value
        return None


@contextlib.contextmanager
def spreading(where: str, order: Order) -> Iterator[Spread]:
    """Load the model in the workers of a cluster.

    Args:
        where: which; see `shared.cluster.connect`.
        order: what they are to run.

    Raises:
        DeployError: see `shared.cluster.Cluster.workers`.
    """
    need = Need(gpu=order.uses_gpu, module="runtime", folders=[order.work], check=partial(check_node, order))
    with connect(where) as cluster, cluster.workers(partial(open_worker, order), need) as workers:
        workers.give(Describe())
        (described,) = workers.outcomes()
        if described.error is not None:
            raise described.error
        assert described.value is not None, "there is a value where there is no error"
        yield Spread(workers, order, described.value)


class Crew(Protocol):
    """Those that ranges are cut for."""

    @property
    def count(self) -> int:
        """How many there are, at least 1."""


class Cutter:
    """Cuts ranges off the samples that are left: such as take some seconds, and smaller ones near the end."""

    def __init__(self, missing: Sequence[int], crew: Crew, run: RunHeader) -> None:
        self._missing = missing
        self._cut = 0
        self._crew = crew
        self._run = run
        self._samples_per_second: float | None = None

    def learn(self, samples: int, seconds: float) -> None:
        """Take into account how fast a worker was."""
        self._samples_per_second = samples / max(seconds, 1e-6)

    def next(self) -> Span | None:
        """The next range; None when all are given."""
        if self._cut == len(self._missing):
            return None
        first = self._missing[self._cut]
        most, stop = self._length(), first
        while stop - first < most and self._cut < len(self._missing) and self._missing[self._cut] == stop:
            stop += 1
            self._cut += 1
        return Span(PieceHeader.of(self._run, range(first, stop)))

    def _length(self) -> int:
        left = len(self._missing) - self._cut
        fair = math.ceil(left / (2 * self._crew.count))
        speed = self._samples_per_second
        wanted = _FIRST_RANGE if speed is None else int(speed * _SECONDS_OF_RANGE)
        return max(1, min(wanted, fair, _LONGEST_RANGE))
