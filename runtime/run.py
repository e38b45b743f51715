"""`runtime run`: a backend over the samples of a data set, recorded for the verifier and the evaluator."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.answers import Loaded, answering
from runtime.doctor_input import suspicions
from runtime.model import Model, ModelOptions, open_model
from shared.errors import UsageError
from shared.latency import TOTAL, disturbance, summarize_stages
from shared.progress import track
from shared.runs import Run, RunHeader, RunWriter
from shared.sample_table import SampleColumns
from shared.table import Table, number

if TYPE_CHECKING:
    from typing_extensions import Unpack

_log = logging.getLogger("runtime")

# What the files of a run are, by name; the rest are raw outputs.
_KINDS = {"run.json": "run", "predictions.npz": "predictions", "samples.jsonl": "latency"}


def run(
    work: Path,
    backend_name: str,
    device: str,
    *,
    num_samples: int | None = None,
    force: bool = False,
    **options: Unpack[ModelOptions],
) -> str:
    """Run a backend over the first samples of the data set. Interrupted, the next call goes on at the first sample
    that is missing; the same command on unchanged input does nothing. Returns what to print.

    Args:
        work, backend_name, device, options: see `runtime.model.open_model`.
        num_samples: how many samples, -1 for all; None: as the config's evaluation.num_samples says, and the
            verification samples in any case.
        force: run afresh, whatever is there.
    """
    model = open_model(work, backend_name, device, **options)
    count = _sample_count(model, num_samples)
    verified = model.config.verification.num_verify_samples if model.config.verification.enabled else 0
    raw_samples = list(range(min(verified, count)))
    stage = model.stage("run", {"num_samples": count, "raw_samples": len(raw_samples)})
    folder = f"runs/{model.name}"
    if not force and stage.up_to_date():
        return _report(Run.open(model.workspace.path(folder)), f"{stage.name}: up to date")
    with stage, answering(model, count) as loaded:
        header = model.header(count, stage.fingerprint, loaded.details, raw_samples)
        attempt = stage.folder(folder)
        writer = RunWriter.open(attempt, header, resume=not force)
        _run_samples(model, loaded, writer, header)
        for name in writer.finish():
            stage.add_artifact(f"{folder}/{name}", _KINDS.get(name, "raw"))
        finished = Run.open(attempt.checked())
        counters = _sums(finished.counters)
        alerts = [*loaded.pipeline.alerts(counters), *suspicions(model, loaded.session, finished)]
        stage.result("runs", model.name, {"samples": count, "counters": counters, "alerts": alerts})
    for alert in alerts:
        _log.warning("%s: %s", stage.name, alert)
    return _report(finished, f"{stage.name}: done")


def _sample_count(model: Model, asked: int | None) -> int:
    available = len(model.dataset)
    if asked is not None and (asked == 0 or asked < -1):
        raise UsageError(f"--num-samples {asked}", hint="give at least 1, or -1 for all samples")
    wanted = model.config.evaluation.num_samples if asked is None else asked
    if wanted == -1:
        return available
    if asked is None and model.config.verification.enabled:
        wanted = max(wanted, model.config.verification.num_verify_samples)
    if asked is not None and asked > available:
        _log.warning("%d samples were asked for, the data set has %d", asked, available)
    return min(wanted, available)


def _run_samples(model: Model, loaded: Loaded, writer: RunWriter, header: RunHeader) -> None:
    """Infer and commit every sample that is not committed yet."""
    left, count = writer.missing(), len(header.tokens)
    if 0 < len(left) < count:
        _log.info("%s: goes on at sample %d, %d of %d are done", model.name, left[0], count - len(left), count)
    if left:
        loaded.warm_up(left[0])
    level = logging.INFO if model.config.evaluation.verbose else logging.DEBUG
    for answer in track(loaded.answers(left, frozenset(header.raw_samples)), model.name, total=len(left)):
        _log.log(
            level,
            "%s: read in %.1f ms, inferred in %.1f ms, %d results",
            answer.token, answer.read_ms, answer.latency_ms.get(TOTAL, math.nan), len(answer.predictions),
        )  # fmt: skip
        writer.commit(answer.index, answer.predictions, answer.latency_ms, answer.counters, answer.raw)


def _sums(counters: SampleColumns[int]) -> dict[str, int]:
    return {name: int(values.sum()) for name, values in counters.values.items()}


def _report(finished: Run, title: str) -> str:
    statistics = summarize_stages(finished.timed_latencies())
    stages = [
        [stage, number(values["median"], 2), number(values["mean"], 2), number(values["max"], 2)]
        for stage, values in statistics.items()
    ]
    counted = [
        [name.replace("_", " "), str(value), number(value / len(finished), 1)]
        for name, value in _sums(finished.counters).items()
        if value
    ]
    disturbed = disturbance(statistics[TOTAL])
    title = f"{title}, {len(finished)} samples" + ("" if disturbed is None else f"; {disturbed}")
    tables = [Table(title, ["stage [ms]", "median", "mean", "max"], stages)]
    if counted:
        tables.append(Table("", ["counted", "in all", "a sample"], counted))
    return "\n".join(table.text() for table in tables)
