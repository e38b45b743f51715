"""One engine, step by step: the graph to build from, the build, the proof, and its files in the workspace."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shared import cast_graph, onnx_graph
from shared.errors import BuildError
from shared.files import write_json
from shared.lazy import lazy_import
from shared.logs import event
from shared.qdq_lint import float_sums
from shared.stages import StageRun
from shared.work_path import WorkPath
from trt_builder import (
    achieved,
    builder_config,
    compat,
    policies,
    reproducible,
    timing_cache,
    weights,
)
from trt_builder.inspector import look
from trt_builder.io_formats import free_inputs
from trt_builder.jobs import Job
from trt_builder.messages import failure
from trt_builder.network import parse, set_precisions
from trt_builder.progress import Phases, make_monitor, run
from trt_builder.record import engine_record
from trt_builder.reproducible import Mode
from trt_builder.session import Session

onnx = lazy_import("onnx")
_log = logging.getLogger("build")

#: Kind of the artifact that is a graph with its precision baked in.
DERIVED = "onnx-derived"


def lowered(session: Session, job: Job) -> Any | None:
    """The graph with the policy's precision baked in (ModelProto); None where flags do that, and the graph stays."""
    if policies.flags_do(job.policy, weakly_typed=session.target.tensorrt.weakly_typed):
        return None
    low = job.policy.policy.low
    assert low is not None  # flags_do is true where nothing is lowered
    model, report = cast_graph.lower(onnx_graph.load(job.onnx), low, keep=job.policy.keep)
    _log.info(
        "%s: %d nodes in %s, %d kept in FP32, %d casts", job.component, report.low, low, len(report.kept), report.casts
    )
    for node, reason in report.kept.items():
        _log.debug("%s: %s stays in FP32: %s", job.component, node, reason)
    return model


def lowered_file(job: Job, target_name: str) -> str:
    """The artifact that holds `lowered`."""
    return f"tensorrt/{target_name}/{job.component}.{job.policy.policy.low}.onnx"


@contextlib.contextmanager
def graph_to_build(stage: StageRun, session: Session, job: Job, target_name: str) -> Iterator[Path]:
    """The ONNX file to parse: the workspace's own, or where precision is baked in, an artifact derived from it."""
    model = lowered(session, job)
    if model is None:
        yield job.onnx
        return
    with stage.artifact(lowered_file(job, target_name), kind=DERIVED) as path:
        onnx.save(model, str(path))
        yield path


def configure(session: Session, job: Job, graph: Path) -> Any:
    """The builder config of an engine.

    Raises:
        EnvironmentLacks: an option or precision that this TensorRT or machine does not have.
    """
    tensorrt = session.target.tensorrt
    config = builder_config.make_config(tensorrt, session.builder, session.options, job.profiles, where=job.component)
    builder_config.set_precision_flags(tensorrt, config, job.policy, onnx_graph.low_types(onnx_graph.load(graph)))
    return config


def build(session: Session, job: Job, graph: Path, reproduce: tuple[Mode, bytes] | None) -> tuple[bytes, bytes]:
    """Build and serialize one engine.

    Args:
        session: TensorRT, its logger and builder.
        job: what to build.
        graph: the ONNX file to parse.
        reproduce: record the choice of kernels, or build with the recorded one (`reproducible`); the shared timing
            cache is left out then.

    Returns:
        The plan, and the recorded choice of kernels (empty unless ``reproduce``).

    Raises:
        BuildError: TensorRT failed, or chose other kernels than the recorded ones; says why, and what to do.
        EnvironmentLacks: an option or precision that this TensorRT does not have.
        KeyboardInterrupt: the user stopped it.
    """
    tensorrt, typed = session.target.tensorrt, job.policy.policy.typed
    session.messages.clear()
    config = configure(session, job, graph)
    # The network points to weights that the parser owns, so the parser must live until the end of the build.
    network, _parser = parse(
        tensorrt,
        session.builder,
        session.logger,
        graph,
        strongly_typed=typed or not tensorrt.weakly_typed,
        component=job.component,
    )
    if tensorrt.weakly_typed and (not typed or compat.lacks_strong_typing(tensorrt)):
        set_precisions(tensorrt, network, job.policy)
        if job.free_inputs:
            free_inputs(tensorrt, network, job.free_inputs)
    phases = Phases()
    monitor = make_monitor(tensorrt, phases)
    if monitor is not None:
        compat.watch(tensorrt, config, monitor)
    chosen: dict[str, str] = {}
    # Whatever cache is used must live as long as the build.
    if reproduce is not None:
        cache, chosen = reproducible.prepare(tensorrt, config, *reproduce)
    else:
        cache = timing_cache.use(config, timing_cache.read(session.cache)) if session.cache is not None else None
    serialized = run(
        lambda: session.builder.build_serialized_network(network, config),
        job.component,
        phases,
        can_cancel=monitor is not None,
    )
    if serialized is None:
        raise failure(job.component, session.messages.problems(), float_sums(onnx_graph.load(graph)))
    plan = bytes(memoryview(serialized))
    if reproduce is None:
        if session.cache is not None and cache is not None:
            timing_cache.save(session.cache, config)
        return plan, b""
    if reproduce[0] == "verify":
        reproducible.compare(tensorrt, config, chosen, component=job.component)
        return plan, reproduce[1]
    return plan, bytes(config.get_timing_cache().serialize())


def prove(session: Session, job: Job, plan: bytes, graph: Path, seconds: float, rejected: WorkPath) -> dict[str, Any]:
    """Look into an engine, and compare it with what was asked for.

    Args:
        session: TensorRT and what it said while it built.
        job: what was asked for.
        plan: the engine.
        graph: the ONNX file that it was made from.
        seconds: how long that took.
        rejected: where the record goes when the engine does not meet its policy.

    Returns:
        The engine's record.

    Raises:
        BuildError: the policy was not met, or TensorRT does not load what it built.
    """
    report = look(session, plan, component=job.component)
    summary = achieved.summary(report.layers, job.policy, report.times)
    record = engine_record(session, job, plan, report, summary)
    model = onnx_graph.load(graph)
    record |= {
        "build_seconds": round(seconds, 2),
        "structure_sha256": weights.structure_hash(model),
        **onnx_graph.tensors(model),
    }
    try:
        achieved.require(summary, job.policy, component=job.component)
    except BuildError as unmet:
        write_json(rejected, record)
        raise BuildError(f"{unmet.message} (all of it: {rejected})", where=unmet.where, hint=unmet.hint) from unmet
    rejected.remove_file()
    measured = event(seconds=round(seconds, 2), bytes=len(plan))
    shares = _describe_shares(summary)
    _log.info("%s: %.1f s, %.1f MB, %s", job.component, seconds, len(plan) / 1e6, shares, extra=measured)
    return record


def _describe_shares(summary: dict[str, Any]) -> str:
    shares = summary["share_of_matrix_layers"] or summary["share_of_layers"]
    return ", ".join(f"{share:.0%} {name}" for name, share in shares.items()) + " of the matrix layers"


def commit(stage: StageRun, job: Job, plan: bytes, record: dict[str, Any], target_name: str) -> None:
    """Add an engine and its record to the stage."""
    relative = f"tensorrt/{target_name}/{job.engine_file}"
    stage.bytes_artifact(relative, "engine", plan)
    stage.json_artifact(f"{relative}.json", "engine-record", record)
    brief = {key: value for key, value in record.items() if key not in ("layers", "format", "plugins")}
    stage.result("engines", f"{target_name}/{job.component}", {"engine": relative, **brief})
