"""The recipe: from the ONNX files in a workspace to engines that are proven to be what was asked for.

Per component: check, derive a graph where precision has to be baked in, parse, set precisions and options, build with
the shared timing cache, read back what TensorRT made of it, and compare that with the policy. All engines of a target
and their records become part of the workspace together, or none does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from shared.errors import EnvironmentLacks, ManifestError
from shared.manifest import MANIFEST_NAME, Manifest, update_manifest
from shared.stages import StageRun
from shared.workspace import Workspace
from trt_builder import compat, one_engine, settings
from trt_builder import target as targets
from trt_builder.order import TOOL, Order, make_order, one_at_a_time
from trt_builder.reproducible import Mode
from trt_builder.session import open_session
from trt_builder.settings import Job
from trt_builder.target import Target

_log = logging.getLogger("build")

# The stage that says why there are no engines at all; those of a target are called ``build:<target>``.
SKIPPED = "build"


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
        ws.stage(SKIPPED, tool=TOOL).skip(str(missing))
        return
    if reproduce is not None and not found.tensorrt.times_kernels:
        raise EnvironmentLacks(
            f"{found.tensorrt.title} chooses kernels where it loads an engine; there is nothing to {reproduce}",
            hint="leave --reproducible out",
        )
    config = settings.read_config(ws, overrides)
    if if_available and config.export.mode == "onnx":
        ws.stage(SKIPPED, tool=TOOL).skip("export.mode is onnx: no engines are asked for")
        return
    order = make_order(ws, config, found)
    if explain:
        _explain(order.stage)
        return
    with one_at_a_time(ws, order):
        if force or reproduce is not None or not order.stage.up_to_date():
            _build(ws, found, order, reproduce)
    _forget_skip(ws)
    if found.gpu is None:
        _log.info("%s: these engines can't run here: there is no GPU", order.name)


def _build(ws: Workspace, found: Target, order: Order, reproduce: Mode | None) -> None:
    _warn_of_known_bugs(found)
    recorded = {job.component: _recorded(ws, order, job) if reproduce == "verify" else b"" for job in order.jobs}
    earlier = ws.manifest().results.get("engines", {})
    session = open_session(found, order.options, ws.path("tensorrt"))
    for job in order.jobs:
        # What this TensorRT lacks is said before the stage begins: a mistake must not cost the engines that are there.
        config = one_engine.configure(session, job, job.onnx)
        if reproduce is not None:
            compat.set_reproducible_flags(found.tensorrt, config, verify=reproduce == "verify")
    with order.stage as stage:
        for job in order.jobs:
            last = earlier.get(f"{order.name}/{job.component}", {})
            if last.get("build_seconds", 0.0) >= 1.0 and not last.get("refitted"):
                _log.info("%s: building; the last time took %.0f s", job.component, last["build_seconds"])
            with one_engine.graph_to_build(stage, session, job, order.name) as graph:
                started = time.monotonic()
                pinned = (reproduce, recorded[job.component]) if reproduce is not None else None
                plan, tactics = one_engine.build_plan(session, job, graph, pinned)
                seconds = time.monotonic() - started
                record = one_engine.prove(session, job, plan, graph, seconds, order.rejected(ws, job))
            one_engine.commit(stage, job, plan, record, order.name)
            if tactics:
                with stage.artifact(order.tactics(job), kind="tactics") as path:
                    path.write_bytes(tactics)


def _forget_skip(ws: Workspace) -> None:
    """Take back the note of an earlier call that nothing could be built here."""

    def forget(manifest: Manifest) -> None:
        if SKIPPED in manifest.stages and manifest.stages[SKIPPED].status == "skipped":
            del manifest.stages[SKIPPED]

    if SKIPPED in ws.manifest().stages:
        update_manifest(ws.root / MANIFEST_NAME, forget)


def _recorded(ws: Workspace, order: Order, job: Job) -> bytes:
    if order.tactics(job) not in ws.manifest().artifacts:
        raise ManifestError(
            "no recorded build to verify against",
            where=f"{ws.root}/{order.tactics(job)}",
            hint="record one first: trt_builder build --reproducible record",
        )
    return ws.artifact(order.tactics(job)).read_bytes()


def _explain(stage: StageRun) -> None:
    if stage.up_to_date():
        return
    for change in stage.changes() or ["an engine is missing or was changed"]:
        _log.info("%s would build: %s", stage.name, change)


def _warn_of_known_bugs(target: Target) -> None:
    known = compat.known_bad(target.tensorrt)
    if known is not None:
        _log.warning("%s %s; verify what it builds with care", target.tensorrt.title, known.reason)
