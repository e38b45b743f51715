"""The recipe: from the ONNX files in a workspace to engines that are proven to be what was asked for.

Per component: check, derive a graph where precision has to be baked in, parse, set precisions and options, build with
the shared timing cache, read back what TensorRT made of it, and compare that with the policy. All engines of a target
and their records become part of the workspace together, or none does.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from shared import onnx_graph
from shared.cluster import Make, Need, connect
from shared.errors import EnvironmentLacks
from shared.int8_passes import find_passes
from shared.manifest import MANIFEST_NAME, Manifest, clean_up, update_manifest
from shared.stages import StageRun
from shared.temporaries import temporary
from shared.work_path import WorkPath
from shared.workspace import Workspace
from trt_builder import compat
from trt_builder import target as targets
from trt_builder.build_plan import TOOL, BuildPlan, one_at_a_time, plan_build, read_config, versions_of
from trt_builder.jobs import Job
from trt_builder.making import (
    Order,
    make,
    open_maker,
    recorded,
    require_same,
    start,
    take_in,
    timings_in,
    with_policy,
)
from trt_builder.reproducible import Mode
from trt_builder.session import Session
from trt_builder.target import Target

_log = logging.getLogger("build")

# The stage that says why there are no engines at all; those of a target are called ``build:<target>``.
SKIPPED = "build"


def build_all(
    work: Path,
    *,
    target: str = "auto",
    overrides: Sequence[str] = (),
    if_available: bool = False,
    force: bool = False,
    explain: bool = False,
    reproduce: Mode | None = None,
    timings: Path | None = None,
    policies: Sequence[str] = (),
    cluster: str | None = None,
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
        policies: precision policies, each with engines of its own; none: the config's.
        cluster: build side by side there, see `shared.cluster.connect`.

    Raises:
        EnvironmentLacks: no TensorRT or no GPU here, or not the version that an option needs; no such cluster, or a
            node lacks something.
        ConfigError: a policy or profile that does not fit the graphs.
        BuildError: TensorRT failed, or built something else than was asked for.
    """
    ws = Workspace.open(work)
    # What is wrong with an override is wrong on every machine.
    config = read_config(ws, overrides)
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
    if if_available and config.export.mode == "onnx":
        ws.stage(SKIPPED, tool=TOOL).skip("export.mode is onnx: no engines are asked for")
        return
    plans = {
        policy: plan_build(ws, read_config(ws, with_policy(overrides, policy)), this_target)
        for policy in dict.fromkeys(policies or (None,))
    }
    for plan in plans.values():
        _advise(ws, plan)
    if explain:
        for plan in plans.values():
            _explain(plan.stage)
        return
    with contextlib.ExitStack() as locks:
        # In one order, so that two commands don't wait for one another.
        for plan in sorted(plans.values(), key=lambda plan: plan.name):
            locks.enter_context(one_at_a_time(ws, plan))
        # A forced build that was killed leaves engines that are up to date, and files of its own.
        clean_up(ws.root / MANIFEST_NAME)
        left = {
            policy: plan
            for policy, plan in plans.items()
            if force or reproduce is not None or not plan.stage.up_to_date()
        }
        if left:
            _warn_of_known_bugs(this_target)
            _require_recorded(ws, left, reproduce)
            if cluster is None:
                _build_here(ws, start(left, timings_in(ws, timings), reproduce), left, reproduce)
            else:
                maker = partial(open_maker, ws.root.absolute(), target, overrides, list(left), reproduce, timings)
                _build_on(cluster, maker, partial(require_same, target, versions_of(this_target)), ws, left)
    _forget_skip(ws)
    if this_target.gpu is None:
        _log.info("%s: these engines can't run here: there is no GPU", ", ".join(plan.name for plan in plans.values()))


def _require_recorded(ws: Workspace, plans: Mapping[str | None, BuildPlan], reproduce: Mode | None) -> None:
    if reproduce == "verify":
        for plan in plans.values():
            for job in plan.jobs:
                recorded(ws, plan, job)


def _build_here(ws: Workspace, session: Session, plans: Mapping[str | None, BuildPlan], reproduce: Mode | None) -> None:
    for plan in plans.values():
        with plan.stage as stage:
            for job in plan.jobs:
                if (seconds := _last_seconds(ws, plan, job)) >= 1.0:
                    _log.info("%s: building; the last time took %.0f s", job.component, seconds)
                with _folder(ws, plan, job) as folder:
                    files = make(replace(session, options=plan.options), ws, plan, job, folder, reproduce)
                    take_in(stage, plan, job, folder, files)


def _build_on(
    cluster: str,
    maker: Make[Order, dict[str, str]],
    check: Callable[[], None],
    ws: Workspace,
    plans: Mapping[str | None, BuildPlan],
) -> None:
    """Make all engines side by side; those of a policy become part of the workspace when its last one is made."""
    gpu = next(iter(plans.values())).target.gpu is not None
    need = Need(gpu=gpu, module=TOOL, folders=[ws.root.absolute()], check=check)
    with contextlib.ExitStack() as opened:
        workers = opened.enter_context(opened.enter_context(connect(cluster)).workers(maker, need))
        orders: dict[Order, tuple[BuildPlan, Job]] = {}
        for policy, plan in plans.items():
            for job in plan.jobs:
                folder = opened.enter_context(_folder(ws, plan, job))
                orders[Order(policy, job.component, folder.relative)] = (plan, job)
        # What takes longest comes first, so that nobody waits for it in the end.
        seconds = _expected_seconds(ws, orders)
        longest_first = sorted(orders, key=lambda order: seconds[order], reverse=True)
        missing = {policy: len(plan.jobs) for policy, plan in plans.items()}
        stages = {policy: opened.enter_context(contextlib.ExitStack()) for policy in plans}
        for policy, plan in plans.items():
            stages[policy].enter_context(plan.stage)
        for order, files in workers.results(longest_first, "engines", lambda order: order.title):
            plan, job = orders[order]
            take_in(plan.stage, plan, job, WorkPath(ws.root, order.folder), files)
            missing[order.policy] -= 1
            if not missing[order.policy]:
                stages[order.policy].close()


@contextlib.contextmanager
def _folder(ws: Workspace, plan: BuildPlan, job: Job) -> Iterator[WorkPath]:
    """Where an engine is made."""
    place = ws.place(f"tensorrt/{plan.name}/{job.component}")
    place.parent.make_folder()
    with temporary(place) as folder:
        yield folder


def _last_seconds(ws: Workspace, plan: BuildPlan, job: Job) -> float:
    """How long the last build took; 0 where that is not known."""
    last = ws.manifest().results.get("engines", {}).get(f"{plan.name}/{job.component}", {})
    return 0.0 if last.get("refitted") else float(last.get("build_seconds", 0.0))


def _expected_seconds(ws: Workspace, orders: Mapping[Order, tuple[BuildPlan, Job]]) -> dict[Order, float]:
    """How long each build is going to take, to compare it with the others: as long as the last time.

    One that was never made takes as long as those that were, for the size of its graph and its types.
    """
    work = {order: job.onnx.stat().st_size * job.policy.types for order, (_, job) in orders.items()}
    known = {order: seconds for order, build in orders.items() if (seconds := _last_seconds(ws, *build))}
    rate = sum(known.values()) / sum(work[order] for order in known) if known else 1.0
    return {order: known.get(order, rate * size) for order, size in work.items()}


def _forget_skip(ws: Workspace) -> None:
    """Remove the note of an earlier call that nothing could be built here."""

    def forget(manifest: Manifest) -> None:
        if SKIPPED in manifest.stages and manifest.stages[SKIPPED].status == "skipped":
            del manifest.stages[SKIPPED]

    if SKIPPED in ws.manifest().stages:
        update_manifest(ws.root / MANIFEST_NAME, forget)


def _explain(stage: StageRun) -> None:
    if stage.up_to_date():
        return
    for change in stage.changes() or ["an engine is missing or was changed"]:
        _log.info("%s would build: %s", stage.name, change)


def _advise(ws: Workspace, plan: BuildPlan) -> None:
    """Warn of INT8 layers whose conversions cost more than they save."""
    for job in plan.jobs:
        if job.policy.int8 and not plan.stage.up_to_date(say=False):
            sizes = {name: axis.opt for name, axis in ws.spec().component(job.component).axes.items()}
            advice = find_passes(onnx_graph.load(job.onnx), sizes).advice()
            if advice is not None:
                _log.warning("%s: %s", job.component, advice)


def _warn_of_known_bugs(target: Target) -> None:
    known = compat.known_bad(target.tensorrt)
    if known is not None:
        _log.warning("%s %s; verify what it builds with care", target.tensorrt.title, known.reason)
