"""`runtime run`: a backend over the samples of a data set, recorded for the verifier and the evaluator."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from runtime.answers import Loaded, answering
from runtime.conditions import conditions
from runtime.model import Model, ModelOptions, open_model
from runtime.pace import sentence
from runtime.recording import alerts_of, record
from runtime.shards import run_shard
from runtime.spread import Order, spreading
from shared.answer import Answer
from shared.errors import UsageError
from shared.latency import TOTAL, disturbance, summarize_stages
from shared.pieces import adopt_pieces
from shared.runs import Run, RunWriter, kind_of
from shared.shards import RUNS, Shard
from shared.stages import StageRun
from shared.table import Table, number

if TYPE_CHECKING:
    from typing_extensions import Unpack

_log = logging.getLogger("runtime")


def run(
    work: Path,
    backend_name: str,
    device: str,
    *,
    num_samples: int | None = None,
    shard: str | None = None,
    cluster: str | None = None,
    force: bool = False,
    readers: int | None = None,
    if_available: bool = False,
    **options: Unpack[ModelOptions],
) -> Answer:
    """Run a backend over the first samples of the data set. Interrupted, the next call goes on at the first sample
    that is missing; the same command on unchanged input does nothing. Returns what to print.

    Args:
        work, backend_name, device, options: see `runtime.model.open_model`.
        num_samples: how many samples, -1 for all; None: as the config's evaluation.num_samples says, and the
            verification samples in any case.
        shard: ``I/N``, to run the Ith of N parts of these samples only, see `runtime.shards`.
        cluster: spread the samples over the workers of this cluster, see `shared.cluster.connect`.
        force: run afresh, whatever is there.
        readers: see `runtime.answers.answering`.
        if_available: where the backend can't run here, or there is nothing that it runs, say so and do nothing.

    Raises:
        UsageError: no such backend, device or shard, or ``shard`` with ``cluster``.
        ManifestError: nothing was exported to the workspace, or a file of it was changed or is not trusted.
        InputError: the data set, or a sample of it, is missing or corrupt.
        EnvironmentLacks: a package, device or disk space is missing.
        ModelLoadError: a file can't be loaded.
        InferenceError: the backend failed.
    """
    if shard is not None and cluster is not None:
        raise UsageError("--shard and --cluster", hint="give one; RAY_ADDRESS in the environment counts as --cluster")
    part = None if shard is None else Shard.parse(shard)
    model = open_model(work, backend_name, device, **options)
    if if_available and (lacking := model.lacking()) is not None:
        return Answer(f"run:{model.name}: skipped: {lacking}", {"run": model.name, "skipped": lacking})
    count = _sample_count(model, num_samples)
    verified = model.config.verification.num_verify_samples if model.config.verification.enabled else 0
    raw_samples = range(min(verified, count))
    settings = {"num_samples": count, "raw_samples": len(raw_samples)}
    if part is not None:
        return run_shard(model, part, settings, force=force, readers=readers)
    stage, folder = model.stage("run", settings), f"{RUNS}/{model.name}"
    if not force and stage.up_to_date():
        return _recorded(model, stage, folder)
    with stage.alone():
        # Another process may have run the same meanwhile.
        if not force and stage.up_to_date():
            return _recorded(model, stage, folder)
        pieces = stage.pieces(folder)
        if cluster is None:
            entered = _alone(model, count, raw_samples, readers)
        else:
            entered = spreading(cluster, Order.of(model, options, readers, count, raw_samples, pieces))
        with stage, entered as hands:
            header = model.header(range(count), stage.fingerprint, hands.details, raw_samples)
            attempt = stage.folder(folder)
            writer = RunWriter.open(attempt, header, resume=not force)
            if force:
                pieces.remove()
            else:
                adopt_pieces(writer, pieces)
            pace = hands.commit(writer)
            for name in writer.finish():
                stage.add_artifact(f"{folder}/{name}", kind_of(name))
            finished = Run.open(attempt.checked())
            alerts = hands.alerts(finished)
            result: dict[str, Any] = {
                "samples": count,
                "counters": finished.counters.sums(),
                "alerts": alerts,
                "conditions": conditions(model.device, threads=str(model.threads or "default")),
            }
            if pace is not None:
                result["pace"] = pace
            stage.result("runs", model.name, result)
    for alert in alerts:
        _log.warning("%s: %s", stage.name, alert)
    answer = _answer(model.name, finished, f"{stage.name}: done", result)
    return Answer(f"{answer}\n{sentence(result['pace'])}", answer.data) if "pace" in result else answer


def _recorded(model: Model, stage: StageRun, folder: str) -> Answer:
    recorded = model.workspace.manifest().results["runs"][model.name]
    return _answer(model.name, Run.open(model.workspace.path(folder)), f"{stage.name}: up to date", recorded)


class _Hands(Protocol):
    """What answers the samples of a run: this process, or the workers of a cluster."""

    @property
    def details(self) -> dict[str, Any]:
        """What is in force, for the header of the run."""

    def commit(self, writer: RunWriter) -> dict[str, Any] | None:
        """Have every sample answered and committed that is not committed yet; how fast, see `runtime.pace`."""

    def alerts(self, run: Run) -> list[str]:
        """What a user must know of the finished run."""


@dataclass(frozen=True)
class _Alone:
    """This process."""

    model: Model
    loaded: Loaded
    samples: range
    raw_samples: range

    @property
    def details(self) -> dict[str, Any]:
        return self.loaded.details

    def commit(self, writer: RunWriter) -> dict[str, Any] | None:
        pace = record(self.model, self.loaded, writer, self.samples, self.raw_samples)
        return pace.result() if pace.samples else None

    def alerts(self, run: Run) -> list[str]:
        return alerts_of(self.model, self.loaded, run)


@contextlib.contextmanager
def _alone(model: Model, count: int, raw_samples: range, readers: int | None) -> Iterator[_Hands]:
    with answering(model, count, readers=readers) as loaded:
        yield _Alone(model, loaded, range(count), raw_samples)


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


def _answer(run: str, finished: Run, title: str, result: Mapping[str, Any]) -> Answer:
    statistics = summarize_stages(finished.timed_latencies())
    stages = [
        [stage, number(values["median"], 2), number(values["mean"], 2), number(values["max"], 2)]
        for stage, values in statistics.items()
    ]
    counted = [
        [name.replace("_", " "), str(value), number(value / len(finished), 1)]
        for name, value in finished.counters.sums().items()
        if value
    ]
    disturbed = disturbance(statistics[TOTAL])
    title = f"{title}, {len(finished)} samples" + ("" if disturbed is None else f"; {disturbed}")
    tables = [Table(title, ["stage [ms]", "median", "mean", "max"], stages)]
    if counted:
        tables.append(Table("", ["counted", "in all", "a sample"], counted))
    data = {"run": run, "latency": statistics, **result}
    return Answer("\n".join(table.text() for table in tables), data)
