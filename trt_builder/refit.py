"""The refit recipe: engines that exist get the weights of the ONNX files as they are now, and are proven again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shared import onnx_graph
from shared.errors import BuildError, InputError
from shared.trust import require_artifact
from shared.workspace import Workspace
from trt_builder import engine, weights
from trt_builder import target as targets
from trt_builder.build_plan import one_at_a_time, options_key, plan_build, read_config
from trt_builder.jobs import Job
from trt_builder.loadable import read_record
from trt_builder.session import open_session

_REBUILD = "build it instead: trt_builder build"


def refit_all(work: Path, *, target: str, overrides: Sequence[str] = ()) -> None:
    """Give the engines of a target the weights of the ONNX files as they are now; everything else must be as it was.

    Args:
        work: the workspace.
        target: ``auto``, ``tensorrt`` or ``rtx``.
        overrides: ``key=value`` changes to the config in the manifest, as given to the build.

    Raises:
        InputError: there are no engines of this target, they were changed, or are not trusted here.
        EnvironmentLacks: no TensorRT or no GPU here.
        BuildError: graph or options are others, the engine is not refittable, or does not meet its policy afterwards.
    """
    ws = Workspace.open(work)
    plan = plan_build(ws, read_config(ws, overrides), targets.find(target))
    if plan.stage.up_to_date():
        return
    if plan.stage.name not in ws.manifest().stages:
        hint = "build them first: trt_builder build --set tensorrt.refittable=true"
        raise InputError(f"there are no engines '{plan.name}' to refit", where=str(ws.root), hint=hint)
    paths = {job.component: ws.artifact(f"tensorrt/{plan.name}/{job.engine_file}") for job in plan.jobs}
    for job in plan.jobs:
        require_artifact(ws.root, f"tensorrt/{plan.name}/{job.engine_file}", "engine")
    serialized = {name: path.read_bytes() for name, path in paths.items()}
    records = {name: read_record(path) for name, path in paths.items()}
    with one_at_a_time(ws, plan), plan.stage as stage:
        session = open_session(plan.target, plan.options, plan.plugins, ws.place("tensorrt"))
        for job in plan.jobs:
            with engine.graph_to_build(stage, session, job, plan.name) as graph:
                started = time.monotonic()
                _require_same_build(job, records[job.component], graph, options_key(plan.options, plan.plugins))
                refitted = weights.refit(session, serialized[job.component], graph, component=job.component)
                seconds = time.monotonic() - started
                record = engine.prove(session, job, refitted, graph, seconds, plan.rejected(ws, job))
            engine.commit(stage, job, refitted, {**record, "refitted": True}, plan.name)


def _require_same_build(job: Job, record: Mapping[str, Any] | None, graph: Path, options: Mapping[str, Any]) -> None:
    if record is None or record["structure_sha256"] != weights.structure_hash(onnx_graph.load(graph)):
        raise BuildError(
            "the graph is not the one that the engine was built from, more than its weights differ",
            where=job.component,
            hint=_REBUILD,
        )
    changed = sorted(name for name, value in options.items() if record["options"].get(name) != value)
    if changed:
        names = ", ".join(f"tensorrt.{name}" for name in changed)
        raise BuildError(f"the engine was built with other options ({names})", where=job.component, hint=_REBUILD)
