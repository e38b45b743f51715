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
from typing import Any

from shared.errors import BuildError, EnvironmentLacks
from shared.files import write_json
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
    profiles,
    timing_cache,
)
from trt_builder import settings as job_settings
from trt_builder import target as targets
from trt_builder.messages import Messages, make_logger
from trt_builder.settings import Job, Options
from trt_builder.target import Target

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


@dataclass(frozen=True)
class Built:
    """An engine and its record."""

    plan: bytes
    record: dict[str, Any]


def build_all(
    work: Path,
    *,
    target: str,
    overrides: Sequence[str] = (),
    if_available: bool = False,
    force: bool = False,
    explain: bool = False,
) -> None:
    """Build the engines of every component.

    Args:
        work: the workspace.
        target: ``auto``, ``tensorrt`` or ``rtx``.
        overrides: ``key=value`` changes to the config in the manifest.
        if_available: where this machine can't build, or the config asks for no engines, record that and end well.
        force: build although everything is up to date.
        explain: only say what would be built and why.

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
    options = job_settings.options(config)
    jobs = job_settings.jobs(ws, config)
    name = found.name(config.tensorrt.precision_policy)
    stage = stage_of(ws, name, found, options, jobs)
    if explain:
        _explain(stage)
        return
    if not force and stage.up_to_date():
        return
    _warn_of_known_bugs(found)
    with stage, _session(found, options, ws.path("tensorrt")) as session:
        for job in jobs:
            with _derived_graph(stage, session, job, name) as graph:
                built = build_one(session, job, graph, ws.path(f"tensorrt/{name}/{job.component}.rejected.json"))
            _commit(stage, job, built, name)
    if found.gpu is None:
        _log.info("%s: these engines can't run here: there is no GPU", name)


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
    builder = target.tensorrt.trt.Builder(logger)
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


def build_one(session: Session, job: Job, graph: Path, rejected: Path) -> Built:
    """Build one engine and prove it.

    Args:
        session: TensorRT, its logger and builder.
        job: what to build.
        graph: the ONNX file to parse.
        rejected: where the record goes when the engine is not what was asked for.

    Raises:
        BuildError: TensorRT failed, or built something else than was asked for.
        EnvironmentLacks: an option or precision that this TensorRT does not have.
    """
    tensorrt = session.target.tensorrt
    started = time.monotonic()
    session.messages.clear()
    model = onnx_graph.load(graph)
    config = engine.make_config(tensorrt, session.builder, session.options, job.profiles, where=job.component)
    engine.set_precision_flags(tensorrt, config, job.policy, onnx_graph.low_types(model))
    parsed, parser = network.parse(
        tensorrt,
        session.builder,
        session.logger,
        graph,
        strongly_typed=job.policy.policy.typed or not tensorrt.weakly_typed,
        component=job.component,
    )
    if tensorrt.weakly_typed and (not job.policy.policy.typed or compat.lacks_strong_typing(tensorrt)):
        network.set_precisions(tensorrt, parsed, job.policy)
    plan = engine.build(
        tensorrt, session.builder, parsed, config, session.messages, cache=session.cache, what=job.component
    )
    seconds = time.monotonic() - started
    # Parser and network may go only now: the network points to the parser's weights.
    del parsed, parser
    report = inspector.look(session.target, session.logger, session.messages, plan)
    summary = achieved.summary(report.layers, job.policy, report.times)
    record = _record(session, job, plan, report, summary, seconds)
    try:
        achieved.require(summary, job.policy, component=job.component)
    except BuildError as error:
        write_json(rejected, record)
        raise BuildError(f"{error.message} (all of it: {rejected})", where=error.where, hint=error.hint) from error
    rejected.unlink(missing_ok=True)
    _log.info("%s: %.1f s, %.1f MB, %s", job.component, seconds, len(plan) / 1e6, _in_words(summary))
    return Built(plan, record)


def _in_words(summary: dict[str, Any]) -> str:
    shares = summary["share_of_matrix_layers"] or summary["share_of_layers"]
    return ", ".join(f"{share:.0%} {name}" for name, share in shares.items()) + " of the matrix layers"


def _record(
    session: Session, job: Job, plan: bytes, report: inspector.Report, summary: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """What is kept beside an engine: enough to say, without TensorRT, what it is and where it loads."""
    target = session.target
    hardware = target.gpu
    return {
        "format": 1,
        "component": job.component,
        "tensorrt": {"flavour": target.tensorrt.flavour, "version": target.tensorrt.version},
        "architecture": target.architecture,
        "gpu": {"name": hardware.name, "multiprocessors": hardware.multiprocessors} if hardware else None,
        "driver": gpu.driver_version() if hardware else None,
        "version_compatible": session.options.version_compatible,
        "hardware_compatibility": session.options.hardware_compatibility,
        "onnx_sha256": job.onnx_hash,
        "precision_policy": job.policy.policy.name,
        "kept_in_fp32": job.policy.keep,
        "profiles": profiles.as_json(job.profiles),
        "options": session.options.as_key(),
        "plugins": session.options.plugins,
        "bytes": len(plan),
        "build_seconds": round(seconds, 2),
        "engine_memory": report.memory,
        "achieved": summary,
        "times_ms": report.times or None,
        "layers": [_layer_as_json(layer) for layer in report.layers],
    }


def _layer_as_json(layer: Any) -> dict[str, Any]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "precision": layer.precision,
        "weights": layer.weights,
        "inputs": [[tensor.name, tensor.dtype] for tensor in layer.inputs],
        "outputs": [[tensor.name, tensor.dtype] for tensor in layer.outputs],
        "tactic": layer.tactic,
        "nodes": list(layer.nodes),
    }


def _commit(stage: StageRun, job: Job, built: Built, target_name: str) -> None:
    relative = f"tensorrt/{target_name}/{job.engine_file}"
    with stage.artifact(relative, kind="engine") as path:
        path.write_bytes(built.plan)
    with stage.artifact(f"{relative}.json", kind="engine-record") as path:
        path.write_text(json.dumps(built.record, indent=1) + "\n", encoding="utf-8")
    brief = {key: value for key, value in built.record.items() if key not in ("layers", "format", "plugins")}
    stage.result("engines", f"{target_name}/{job.component}", {"engine": relative, **brief})
