"""One engine, step by step: the graph to build from, the build, the proof, and its files in the workspace."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shared.errors import BuildError
from shared.files import write_json
from shared.lazy import lazy_import
from shared.stages import StageRun
from trt_builder import achieved, cast_graph, compat, engine, inspector, network, onnx_graph, policies, refit
from trt_builder.record import engine_record
from trt_builder.reproducible import Mode
from trt_builder.session import Session
from trt_builder.settings import Job

onnx = lazy_import("onnx")
_log = logging.getLogger("build")


@contextlib.contextmanager
def graph_to_build(stage: StageRun, session: Session, job: Job, target_name: str) -> Iterator[Path]:
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


def configure(session: Session, job: Job, graph: Path) -> Any:
    """The builder config of an engine.

    Raises:
        EnvironmentLacks: an option or precision that this TensorRT or machine does not have.
    """
    tensorrt = session.target.tensorrt
    config = engine.make_config(tensorrt, session.builder, session.options, job.profiles, where=job.component)
    engine.set_precision_flags(tensorrt, config, job.policy, onnx_graph.low_types(onnx_graph.load(graph)))
    return config


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
    builder_config = configure(session, job, graph)
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
    model = onnx_graph.load(graph)
    record |= {
        "build_seconds": round(seconds, 2),
        "structure_sha256": refit.structure_hash(model),
        **onnx_graph.tensors(model),
    }
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


def commit(stage: StageRun, job: Job, plan: bytes, record: dict[str, Any], target_name: str) -> None:
    """Add an engine and its record to the stage."""
    relative = f"tensorrt/{target_name}/{job.engine_file}"
    with stage.artifact(relative, kind="engine") as path:
        path.write_bytes(plan)
    with stage.artifact(f"{relative}.json", kind="engine-record") as path:
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    brief = {key: value for key, value in record.items() if key not in ("layers", "format", "plugins")}
    stage.result("engines", f"{target_name}/{job.component}", {"engine": relative, **brief})
