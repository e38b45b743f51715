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
from shared.trust import require_artifact
from shared.work_path import WorkPath
from shared.workspace import Workspace
from trt_builder import compat, engine
from trt_builder import target as targets
from trt_builder.build_plan import TOOL, BuildPlan, one_at_a_time, plan_build, read_config
from trt_builder.jobs import Job
from trt_builder.reproducible import Mode
from trt_builder.session import open_session
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
    timings: Path | None = None,
) -> None:
    """Build the engines of every component.

    Args:
        work: the workspace.
        target: ``auto``, ``tensorrt`` or ``rtx``.
        overrides: ``key=value`` changes to the config in the manifest.
        if_available: where this machine can't build, or the config asks for no engines, record that and succeed.
        force: build although everything is up to date.
        explain: only say what would be built and why.
        reproduce: ``record`` the choice of kernels, or ``verify`` that a build with the recorded one repeats it.
        timings: folder that keeps kernel timings; None: ``tensorrt/`` of the workspace.

    Raises:
        EnvironmentLacks: no TensorRT or no GPU here, or not the version that an option needs.
        ConfigError: a policy or profile that does not fit the graphs.
        BuildError: TensorRT failed, or built something else than was asked for.
    """
    ws = Workspace.open(work)
    try:
        this_target = targets.find(target)
    except EnvironmentLacks as missing:
        if not if_available:
            raise
        ws.stage(SKIPPED, tool=TOOL).skip(str(missing))
        return
    if reproduce is not None and not this_target.tensorrt.times_kernels:
        raise EnvironmentLacks(
            f"{this_target.tensorrt.title} chooses kernels where it loads an engine; there is nothing to {reproduce}",
            hint="leave --reproducible out",
        )
    config = read_config(ws, overrides)
    if if_available and config.export.mode == "onnx":
        ws.stage(SKIPPED, tool=TOOL).skip("export.mode is onnx: no engines are asked for")
        return
    plan = plan_build(ws, config, this_target)
    if explain:
        _explain(plan.stage)
        return
    with one_at_a_time(ws, plan):
        if force or reproduce is not None or not plan.stage.up_to_date():
            _build(ws, plan, reproduce, ws.place("tensorrt") if timings is None else WorkPath(timings))
    _forget_skip(ws)
    if this_target.gpu is None:
        _log.info("%s: these engines can't run here: there is no GPU", plan.name)


def _build(ws: Workspace, plan: BuildPlan, reproduce: Mode | None, timings: WorkPath) -> None:
    tensorrt = plan.target.tensorrt
    _warn_of_known_bugs(plan.target)
    recorded = {job.component: _recorded(ws, plan, job) if reproduce == "verify" else b"" for job in plan.jobs}
    earlier = ws.manifest().results.get("engines", {})
    session = open_session(plan.target, plan.options, plan.plugins, timings)
    for job in plan.jobs:
        # What this TensorRT lacks is said before the stage begins: a mistake must not cost the engines that are there.
        config = engine.configure(session, job, job.onnx)
        if reproduce is not None:
            compat.set_reproducible_flags(tensorrt, config, verify=reproduce == "verify")
    with plan.stage as stage:
        for job in plan.jobs:
            last = earlier.get(f"{plan.name}/{job.component}", {})
            if last.get("build_seconds", 0.0) >= 1.0 and not last.get("refitted"):
                _log.info("%s: building; the last time took %.0f s", job.component, last["build_seconds"])
            with engine.graph_to_build(stage, session, job, plan.name) as graph:
                started = time.monotonic()
                pinned = (reproduce, recorded[job.component]) if reproduce is not None else None
                serialized, tactics = engine.build(session, job, graph, pinned)
                seconds = time.monotonic() - started
                record = engine.prove(session, job, serialized, graph, seconds, plan.rejected(ws, job))
            engine.commit(stage, job, serialized, record, plan.name)
            if tactics:
                stage.bytes_artifact(plan.tactics(job), "tactics", tactics)


def _forget_skip(ws: Workspace) -> None:
    """Remove the note of an earlier call that nothing could be built here."""

    def forget(manifest: Manifest) -> None:
        if SKIPPED in manifest.stages and manifest.stages[SKIPPED].status == "skipped":
            del manifest.stages[SKIPPED]

    if SKIPPED in ws.manifest().stages:
        update_manifest(ws.root / MANIFEST_NAME, forget)


def _recorded(ws: Workspace, plan: BuildPlan, job: Job) -> bytes:
    if plan.tactics(job) not in ws.manifest().artifacts:
        raise ManifestError(
            "no recorded build to verify against",
            where=f"{ws.root}/{plan.tactics(job)}",
            hint="record one first: trt_builder build --reproducible record",
        )
    require_artifact(ws.root, plan.tactics(job), "tactics")
    return ws.artifact(plan.tactics(job)).read_bytes()


def _explain(stage: StageRun) -> None:
    if stage.up_to_date():
        return
    for change in stage.changes() or ["an engine is missing or was changed"]:
        _log.info("%s would build: %s", stage.name, change)


def _warn_of_known_bugs(target: Target) -> None:
    known = compat.known_bad(target.tensorrt)
    if known is not None:
        _log.warning("%s %s; verify what it builds with care", target.tensorrt.title, known.reason)
