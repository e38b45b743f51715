"""The refit recipe: engines that exist get the weights of the ONNX files as they are now, and are proven again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared.errors import BuildError, InputError
from shared.workspace import Workspace
from trt_builder import one_engine, onnx_graph, refit, settings
from trt_builder import target as targets
from trt_builder.check import read_record
from trt_builder.order import make_order, one_at_a_time
from trt_builder.session import open_session
from trt_builder.settings import Job


def refit_all(work: Path, *, target: str, overrides: Sequence[str] = ()) -> None:
    """Give the engines of a target the weights of the ONNX files as they are now; everything else must be as it was.

    Args:
        work: the workspace.
        target: ``auto``, ``tensorrt`` or ``rtx``.
        overrides: ``key=value`` changes to the config in the manifest, as given to the build.

    Raises:
        InputError: there are no engines of this target, or they were changed.
        EnvironmentLacks: no TensorRT or no GPU here.
        BuildError: the graph is another one, the engine is not refittable, or is not what was asked for afterwards.
    """
    ws = Workspace.open(work)
    found = targets.find(target)
    order = make_order(ws, settings.read_config(ws, overrides), found)
    if order.stage.up_to_date():
        return
    if order.stage.name not in ws.manifest().stages:
        hint = "build them first: trt_builder build --set tensorrt.refittable=true"
        raise InputError(f"there are no engines '{order.name}' to refit", where=str(ws.root), hint=hint)
    engines = {job.component: ws.artifact(f"tensorrt/{order.name}/{job.engine_file}") for job in order.jobs}
    before = {name: path.read_bytes() for name, path in engines.items()}
    records = {name: read_record(path) for name, path in engines.items()}
    with one_at_a_time(ws, order), order.stage as stage:
        session = open_session(found, order.options, ws.path("tensorrt"))
        for job in order.jobs:
            with one_engine.graph_to_build(stage, session, job, order.name) as graph:
                started = time.monotonic()
                _same_graph(job, records[job.component], graph)
                plan = refit.refit(
                    found.tensorrt, session.logger, session.messages, before[job.component], graph,
                    component=job.component,
                )  # fmt: skip
                seconds = time.monotonic() - started
                record = one_engine.prove(session, job, plan, graph, seconds, order.rejected(ws, job))
            one_engine.commit(stage, job, plan, {**record, "refitted": True}, order.name)


def _same_graph(job: Job, record: dict[str, Any] | None, graph: Path) -> None:
    structure = refit.structure_hash(onnx_graph.load(graph))
    if record is None or record["structure_sha256"] != structure:
        raise BuildError(
            "the graph is not the one that the engine was built from, more than its weights differ",
            where=job.component,
            hint="build it instead: trt_builder build",
        )
