"""A model's answers, committed to a run or to a piece of one, and what a user must know of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from functools import partial

from runtime.answers import Loaded
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
    logged = _log.isEnabledFor(level)
    for answer in track(loaded.answers(left, raw_samples, pace), model.name, total=len(left)):
        if logged:
            total = answer.latency_ms.get(TOTAL, math.nan)
            found = len(answer.predictions)
            numbers = event("sample", sample=answer.token, read_ms=answer.read_ms, latency_ms=total, results=found)
            _log.log(
                level,
                "%s: read in %.1f ms, inferred in %.1f ms, %d results",
                answer.token, answer.read_ms, total, found, extra=numbers,
            )  # fmt: skip
        writer.commit(answer.index, answer.predictions, answer.latency_ms, answer.counters, answer.raw)
    return pace
