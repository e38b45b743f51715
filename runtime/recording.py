"""A model's answers, committed to a run or to a piece of one, and what a user must know of them."""

from __future__ import annotations

import logging
import math
import queue
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from runtime.answers import Answer, Loaded
from runtime.doctor_input import suspicions
from runtime.model import Model
from runtime.pace import Pace
from shared.latency import TOTAL
from shared.logs import event
from shared.pieces import PieceWriter
from shared.progress import track
from shared.runs import Run, RunWriter
from shared.tasks import find

_log = logging.getLogger("runtime")

# Answers that wait to be committed: enough for the time of a flush of the disk, at 2,000 a second.
_MOST_WAITING = 64


def alerts_of(model: Model, loaded: Loaded, run: Run) -> list[str]:
    """What a user must know of the results of a finished run."""
    answers = partial(run.predictions, kind=find(run.header.task).container)
    return [
        *loaded.pipeline.alerts(run.counters.sums()),
        *suspicions(model, loaded.session, len(run), answers),
    ]


def record(
    model: Model, loaded: Loaded, writer: RunWriter | PieceWriter, samples: range, raw_samples: Collection[int]
) -> Pace:
    """Infer and commit every one of ``samples`` that is not committed yet; returns how fast that went.

    Args:
        model, loaded: what answers.
        writer: of a run or piece that is to have ``samples``.
        samples: positions in the data set.
        raw_samples: those whose raw outputs are kept.
    """
    left, count = writer.missing(), len(samples)
    if 0 < len(left) < count:
        _log.info("%s: goes on at sample %d, %d of %d are done", model.name, left[0], count - len(left), count)
    if left:
        loaded.warm_up(left[0])
    pace = Pace()
    level = logging.INFO if model.config.evaluation.verbose else logging.DEBUG
    with committed(loaded, writer, left, raw_samples, pace) as answers:
        for answer in track(answers, model.name, total=len(left)):
            total = answer.latency_ms.get(TOTAL, math.nan)
            found = len(answer.predictions)
            numbers = event("sample", sample=answer.token, read_ms=answer.read_ms, latency_ms=total, results=found)
            _log.log(
                level,
                "%s: read in %.1f ms, inferred in %.1f ms, %d results",
                answer.token, answer.read_ms, total, found, extra=numbers,
            )  # fmt: skip
    return pace


@contextmanager
def committed(
    loaded: Loaded, writer: RunWriter | PieceWriter, indices: Sequence[int], raw_samples: Collection[int], pace: Pace
) -> Iterator[Iterator[Answer]]:
    """The answers on samples, as they are taken, committed by the end of the block.

    Where several requests are in flight, a thread commits while this one drives the model: committing takes as long as
    a small model's request. It stands still while a sample has the device to itself.

    Args:
        loaded: what answers.
        writer: of a run or piece.
        indices, raw_samples, pace: see `Loaded.answers`.

    Raises:
        ValueError, EnvironmentLacks: see `RunWriter.commit`; and what `Loaded.answers` raises.
    """
    if loaded.in_flight == 1:
        yield _handed_to(partial(_commit, writer), loaded.answers(indices, raw_samples, pace))
        return
    behind = _Behind(writer)
    try:
        yield _handed_to(behind.commit, loaded.answers(indices, raw_samples, pace, behind.settle))
    finally:
        behind.end()
    behind.raise_error()


def _handed_to(commit: Callable[[Answer], None], answers: Iterator[Answer]) -> Iterator[Answer]:
    for answer in answers:
        commit(answer)
        yield answer


def _commit(writer: RunWriter | PieceWriter, answer: Answer) -> None:
    writer.commit(answer.index, answer.predictions, answer.latency_ms, answer.counters, answer.raw)


class _Behind:
    """A thread that commits answers, in order; after an error it commits none."""

    def __init__(self, writer: RunWriter | PieceWriter) -> None:
        self._writer = writer
        self._waiting = queue.Queue[Answer | None](_MOST_WAITING)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._commit_all, name="commit")
        self._thread.start()

    def commit(self, answer: Answer) -> None:
        """Commit an answer, soon."""
        self.raise_error()
        self._waiting.put(answer)

    def settle(self) -> None:
        """Wait until what it was given is committed."""
        self._waiting.join()
        self.raise_error()

    def end(self) -> None:
        """Commit the rest, and end."""
        self._waiting.put(None)
        self._thread.join()

    def raise_error(self) -> None:
        """Raise what committing raised."""
        if self._error is not None:
            raise self._error

    def _commit_all(self) -> None:
        while (answer := self._waiting.get()) is not None:
            try:
                if self._error is None:
                    _commit(self._writer, answer)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is raised in the thread that drives
                self._error = error
            finally:
                self._waiting.task_done()
