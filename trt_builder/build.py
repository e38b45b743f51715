"""The recipe: from the ONNX files in a workspace to engines that are proven to be what was asked for.

Per component: check, derive a graph where precision has to be baked in, parse, set precisions and options, build with
the shared timing cache, read back what TensorRT made of it, and compare that with the policy. All engines of a target
and their records become part of the workspace together, or none does.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from shared.errors import BuildError, EnvironmentLacks, ManifestError
from shared.files import explain_os_errors, write_json
from shared.lazy import lazy_import
from shared.stages import StageRun
from shared.workspace import Workspace
from trt_builder import (
    achieved,
    cast_graph,
    compat,
    engine,
    gpu,
    inspector,
    network,
    onnx_graph,
    policies,
    refit,
    timing_cache,
)
from trt_builder import settings as job_settings
from trt_builder import target as targets
from trt_builder.check import read_record
from trt_builder.messages import Messages, make_logger
from trt_builder.record import engine_record
from trt_builder.reproducible import Mode
from trt_builder.settings import Job, Options
from trt_builder.target import Target

if TYPE_CHECKING:
    from shared.config import DeployConfig

onnx = lazy_import("onnx")
_log = logging.getLogger("build")

TOOL = "trt_builder"


@dataclass(frozen=True)
class Session:
    """What the engines of one target share: TensorRT takes one logger per process, and one builder will do."""

    target: Target
    options: Options
    messages: Messages
    logger: Any
    builder: Any
    cache: Path | None


def build_all(
    work: Path,
    *,
    target: str,
    overrides: Sequence[str] = (),
    if_available: bool = False,
    force: bool = False,
    explain: bool = False,
    reproduce: Mode | None = None,
) -> None:
    """Build the engines of every component.

    Args:
        work: the workspace.
        target: ``auto``, ``tensorrt`` or ``rtx``.
        overrides: ``key=value`` changes to the config in the manifest.
        if_available: where this machine can't build, or the config asks for no engines, record that and end well.
        force: build although everything is up to date.
        explain: only say what would be built and why.
        reproduce: ``record`` the choice of kernels, or ``verify`` that a build with the recorded one repeats it.

    Raises:
        EnvironmentLacks: no TensorRT or no GPU here, or not the version that an option needs.
        ConfigError: a policy or profile that does not fit the graphs.
        BuildError: TensorRT failed, or built something else than was asked for.
    """
    ws = Workspace.open(work)
    try:
        found = targets.find(target)
    except EnvironmentLacks as missing:
        if not if_available:
            raise
        ws.stage("build", tool=TOOL).skip(str(missing))
        return
    config = job_settings.read_config(ws, overrides)
    if if_available and config.export.mode == "onnx":
        ws.stage("build", tool=TOOL).skip("export.mode is onnx: no engines are asked for")
        return
    order = _order(ws, config, found)
    if explain:
        _explain(order.stage)
        return
    with _one_at_a_time(ws, order):
        if force or reproduce is not None or not order.stage.up_to_date():
            _build(ws, found, order, reproduce)
    if found.gpu is None:
        _log.info("%s: these engines can't run here: there is no GPU", order.name)


@contextlib.contextmanager
def _one_at_a_time(ws: Workspace, order: Order) -> Iterator[None]:
    """Hold a target: a second process waits for the first, and then finds everything up to date."""
    lock = FileLock(ws.path(f".locks/target-{order.name}.lock"))
    with explain_os_errors(ws.root):
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _log.info("%s: another process is building it, waiting", order.name)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(ws: Workspace, found: Target, order: Order, reproduce: Mode | None) -> None:
    _warn_of_known_bugs(found)
    recorded = {job.component: _recorded(ws, order, job) if reproduce == "verify" else b"" for job in order.jobs}
    with order.stage as stage, _session(found, order.options, ws.path("tensorrt")) as session:
        for job in order.jobs:
            with _derived_graph(stage, session, job, order.name) as graph:
                started = time.monotonic()
                pinned = (reproduce, recorded[job.component]) if reproduce is not None else None
                plan, tactics = build_plan(session, job, graph, pinned)
                seconds = time.monotonic() - started
                record = prove(session, job, plan, graph, seconds, order.rejected(ws, job))
            _commit(stage, job, plan, record, order.name)
            if tactics:
                with stage.artifact(order.tactics(job), kind="tactics") as path:
                    path.write_bytes(tactics)


def refit_all(work: Path, *, target: str, overrides: Sequence[str] = ()) -> None:
    """Give the engines of a target the weights of the ONNX files as they are now; everything else must be as it was.

    Args:
        work: the workspace.
        target: ``auto``, ``tensorrt`` or ``rtx``.
        overrides: ``key=value`` changes to the config in the manifest, as given to the build.

    Raises:
        ManifestError: there are no engines of this target, or they were changed.
        EnvironmentLacks: no TensorRT or no GPU here.
        BuildError: the graph is another one, the engine is not refittable, or is not what was asked for afterwards.
    """
    ws = Workspace.open(work)
    found = targets.find(target)
    order = _order(ws, job_settings.read_config(ws, overrides), found)
    if order.stage.up_to_date():
        return
    engines = {job.component: ws.artifact(f"tensorrt/{order.name}/{job.engine_file}") for job in order.jobs}
    before = {name: path.read_bytes() for name, path in engines.items()}
    records = {name: read_record(path) for name, path in engines.items()}
    with order.stage as stage, _session(found, order.options, ws.path("tensorrt")) as session:
        for job in order.jobs:
            with _derived_graph(stage, session, job, order.name) as graph:
                started = time.monotonic()
                _same_graph(job, records[job.component], graph)
                plan = refit.refit(
                    found.tensorrt, session.logger, session.messages, before[job.component], graph,
                    component=job.component,
                )  # fmt: skip
                seconds = time.monotonic() - started
                record = prove(session, job, plan, graph, seconds, order.rejected(ws, job))
            _commit(stage, job, plan, {**record, "refitted": True}, order.name)


@dataclass(frozen=True)
class Order:
    """What is to be made: the jobs and options of a target, under a name, in a stage."""

    name: str
    options: Options
    jobs: list[Job]
    stage: StageRun

    def tactics(self, job: Job) -> str:
        """Where the recorded choice of kernels goes."""
        return f"tensorrt/{self.name}/{job.component}.tactics"

    def rejected(self, ws: Workspace, job: Job) -> Path:
        """Where the record of an engine goes that is not what was asked for."""
        return ws.path(f"tensorrt/{self.name}/{job.component}.rejected.json")


def _order(ws: Workspace, config: DeployConfig, target: Target) -> Order:
    options, jobs = job_settings.options(config), job_settings.jobs(ws, config)
    name = target.name(config.tensorrt.precision_policy)
    return Order(name, options, jobs, stage_of(ws, name, target, options, jobs))


def _recorded(ws: Workspace, order: Order, job: Job) -> bytes:
    if order.tactics(job) not in ws.manifest().artifacts:
        raise ManifestError(
            "no recorded build to verify against",
            where=f"{ws.root}/{order.tactics(job)}",
            hint="record one first: trt_builder build --reproducible record",
        )
    return ws.artifact(order.tactics(job)).read_bytes()


def _same_graph(job: Job, record: dict[str, Any] | None, graph: Path) -> None:
    structure = refit.structure_hash(onnx_graph.load(graph))
    if record is None or record["structure_sha256"] != structure:
        raise BuildError(
            "the graph is not the one that the engine was built from, more than its weights differ",
            where=job.component,
            hint="build it instead: trt_builder build",
        )


def stage_of(ws: Workspace, name: str, target: Target, options: Options, jobs: Sequence[Job]) -> StageRun:
    """The stage of a target; its key holds everything that an engine depends on."""
    hardware = target.gpu
    return ws.stage(
        f"build:{name}",
        tool=TOOL,
        config={"options": options.as_key(), "components": {job.component: job.as_key() for job in jobs}},
        inputs={f"onnx:{job.component}": job.onnx_hash for job in jobs},
        versions={
            target.tensorrt.flavour: target.tensorrt.version,
            "architecture": target.architecture,
            "gpu": f"{hardware.name}, {hardware.multiprocessors} SM, {hardware.memory} bytes" if hardware else "none",
            "driver": (gpu.driver_version() or "none") if hardware else "none",
        },
    )


def _explain(stage: StageRun) -> None:
    if stage.up_to_date():
        return
    for change in stage.changes() or ["an engine is missing or was changed"]:
        _log.info("%s would build: %s", stage.name, change)


def _warn_of_known_bugs(target: Target) -> None:
    known = compat.known_bad(target.tensorrt)
    if known is not None:
        _log.warning("%s %s; verify what it builds with care", target.tensorrt.title, known.reason)


@contextlib.contextmanager
def _session(target: Target, options: Options, folder: Path) -> Iterator[Session]:
    messages = Messages()
    # Without a GPU no engine can be loaded, so the layers are read from what the builder logs.
    logger = make_logger(target.tensorrt.trt, messages, layers=target.gpu is None)
    engine.load_plugins(target.tensorrt, logger, sorted(options.plugins))
    builder = compat.make_builder(target.tensorrt, logger)
    if builder is None:
        raise EnvironmentLacks(
            f"{target.tensorrt.title} does not start: {' '.join(messages.problems()[-1:])}",
            hint="trt_builder doctor shows driver and versions",
        )
    cache = timing_cache.cache_path(folder, target) if target.tensorrt.times_kernels else None
    yield Session(target, options, messages, logger, builder, cache)


@contextlib.contextmanager
def _derived_graph(stage: StageRun, session: Session, job: Job, target_name: str) -> Iterator[Path]:
    """The ONNX file to parse: the workspace's own, or where precision is baked in, an artifact derived from it."""
    if policies.flags_do(job.policy, weakly_typed=session.target.tensorrt.weakly_typed):
        yield job.onnx
        return
    low = job.policy.policy.low
    assert low is not None  # flags_do is true where nothing is lowered
    model, report = cast_graph.lower(onnx_graph.load(job.onnx), low, keep=job.policy.keep)
    _log.info(
        "%s: %d nodes in %s, %d kept in FP32, %d casts", job.component, report.low, low, len(report.kept), report.casts
    )
    for node, reason in report.kept.items():
        _log.debug("%s: %s stays in FP32: %s", job.component, node, reason)
    relative = f"tensorrt/{target_name}/{job.component}.{low}.onnx"
    with stage.artifact(relative, kind="onnx-derived") as path:
        onnx.save(model, str(path))
        yield path


def build_plan(session: Session, job: Job, graph: Path, reproduce: tuple[Mode, bytes] | None) -> tuple[bytes, bytes]:
    """Build one engine.

    Args:
        session: TensorRT, its logger and builder.
        job: what to build.
        graph: the ONNX file to parse.
        reproduce: record the choice of kernels, or build with the recorded one.

    Returns:
        The plan, and the recorded choice of kernels (empty unless ``reproduce``).

    Raises:
        BuildError: TensorRT failed.
        EnvironmentLacks: an option or precision that this TensorRT does not have.
    """
    tensorrt, typed = session.target.tensorrt, job.policy.policy.typed
    session.messages.clear()
    builder_config = engine.make_config(tensorrt, session.builder, session.options, job.profiles, where=job.component)
    engine.set_precision_flags(tensorrt, builder_config, job.policy, onnx_graph.low_types(onnx_graph.load(graph)))
    # The network points to weights that the parser owns, so the parser must live until the end of the build.
    parsed, _parser = network.parse(
        tensorrt,
        session.builder,
        session.logger,
        graph,
        strongly_typed=typed or not tensorrt.weakly_typed,
        component=job.component,
    )
    if tensorrt.weakly_typed and (not typed or compat.lacks_strong_typing(tensorrt)):
        network.set_precisions(tensorrt, parsed, job.policy)
    return engine.build(
        tensorrt,
        session.builder,
        parsed,
        builder_config,
        session.messages,
        cache=session.cache,
        what=job.component,
        reproduce=reproduce,
    )


def prove(session: Session, job: Job, plan: bytes, graph: Path, seconds: float, rejected: Path) -> dict[str, Any]:
    """Look into an engine, and compare it with what was asked for.

    Args:
        session: TensorRT and what it said while it built.
        job: what was asked for.
        plan: the engine.
        graph: the ONNX file that it was made from.
        seconds: how long that took.
        rejected: where the record goes when the engine is not what was asked for.

    Returns:
        The engine's record.

    Raises:
        BuildError: the policy was not met, or TensorRT does not load what it built.
    """
    report = inspector.look(session.target, session.logger, session.messages, plan)
    summary = achieved.summary(report.layers, job.policy, report.times)
    record = engine_record(session.target, session.options, job, plan, report, summary)
    record |= {"build_seconds": round(seconds, 2), "structure_sha256": refit.structure_hash(onnx_graph.load(graph))}
    try:
        achieved.require(summary, job.policy, component=job.component)
    except BuildError as error:
        write_json(rejected, record)
        raise BuildError(f"{error.message} (all of it: {rejected})", where=error.where, hint=error.hint) from error
    rejected.unlink(missing_ok=True)
    _log.info("%s: %.1f s, %.1f MB, %s", job.component, seconds, len(plan) / 1e6, _in_words(summary))
    return record


def _in_words(summary: dict[str, Any]) -> str:
    shares = summary["share_of_matrix_layers"] or summary["share_of_layers"]
    return ", ".join(f"{share:.0%} {name}" for name, share in shares.items()) + " of the matrix layers"


def _commit(stage: StageRun, job: Job, plan: bytes, record: dict[str, Any], target_name: str) -> None:
    relative = f"tensorrt/{target_name}/{job.engine_file}"
    with stage.artifact(relative, kind="engine") as path:
        path.write_bytes(plan)
    with stage.artifact(f"{relative}.json", kind="engine-record") as path:
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    brief = {key: value for key, value in record.items() if key not in ("layers", "format", "plugins")}
    stage.result("engines", f"{target_name}/{job.component}", {"engine": relative, **brief})
