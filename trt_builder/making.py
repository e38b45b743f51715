"""An engine made: built, proven and written into a folder of its own, here or on a node of a cluster.

A folder becomes part of the workspace when all engines of its target are made; the process that the user started does
that, whoever made them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from shared.errors import EnvironmentLacks, InputError, ManifestError
from shared.files import sha256_of_file, write_bytes, write_json
from shared.json_reader import DATA_BYTES, read_json
from shared.lazy import lazy_import
from shared.stages import StageRun
from shared.trust import require_artifact
from shared.work_path import WorkPath
from shared.workspace import Workspace
from trt_builder import compat, engine
from trt_builder import target as targets
from trt_builder.build_plan import BuildPlan, plan_build, read_config, versions_of
from trt_builder.jobs import Job
from trt_builder.reproducible import Mode
from trt_builder.session import Session, open_session

onnx = lazy_import("onnx")

_ENGINE, _RECORD, _TACTICS, _GRAPH = "engine", "record.json", "tactics", "graph.onnx"


class Order(NamedTuple):
    """Asks for an engine.

    Attributes:
        policy: the precision policy; None: as the config says.
        component: of the model.
        folder: where in the workspace its files go.
    """

    policy: str | None
    component: str
    folder: str

    @property
    def title(self) -> str:
        """For a message."""
        return self.component if self.policy is None else f"{self.component} in {self.policy}"


def with_policy(overrides: Sequence[str], policy: str | None) -> list[str]:
    """Overrides of the config that ask for a precision policy."""
    return [*overrides, *([] if policy is None else [f"tensorrt.precision_policy={policy}"])]


def timings_in(ws: Workspace, folder: Path | None) -> WorkPath:
    """The folder of kernel timings: ``folder``, or the workspace's."""
    return ws.place("tensorrt") if folder is None else WorkPath(folder)


def start(plans: Mapping[str | None, BuildPlan], timings: WorkPath, reproduce: Mode | None) -> Session:
    """Start TensorRT for the engines of some policies, and ask it for all of them, before anything is built.

    Args:
        plans: by policy; of one target.
        timings: folder of kernel timings.
        reproduce: see `trt_builder.build.build_all`.

    Raises:
        EnvironmentLacks: an option or precision that this TensorRT or machine does not have.
    """
    first = next(iter(plans.values()))
    session = open_session(first.target, first.options, first.plugins, timings)
    for plan in plans.values():
        for job in plan.jobs:
            config = engine.configure(replace(session, options=plan.options), job, job.onnx)
            if reproduce is not None:
                compat.set_reproducible_flags(plan.target.tensorrt, config, verify=reproduce == "verify")
    return session


def make(
    session: Session, ws: Workspace, plan: BuildPlan, job: Job, folder: WorkPath, reproduce: Mode | None
) -> dict[str, str]:
    """Build an engine and prove it.

    Args:
        session: TensorRT, its logger and builder.
        ws: the workspace.
        plan: what it belongs to.
        job: which engine.
        folder: where its files go.
        reproduce: see `trt_builder.build.build_all`.

    Returns:
        sha256 of each file by its name.

    Raises:
        BuildError: TensorRT failed, or built something else than was asked for.
        EnvironmentLacks: an option or precision that this TensorRT does not have.
    """
    folder.make_folder()
    pinned = None if reproduce is None else (reproduce, recorded(ws, plan, job) if reproduce == "verify" else b"")
    model = engine.lowered(session, job)
    if model is not None:
        write_bytes(folder / _GRAPH, model.SerializeToString())
    graph = job.onnx if model is None else (folder / _GRAPH).checked()
    started = time.monotonic()
    serialized, tactics = engine.build(session, job, graph, pinned)
    seconds = time.monotonic() - started
    write_json(folder / _RECORD, engine.prove(session, job, serialized, graph, seconds, plan.rejected(ws, job)))
    write_bytes(folder / _ENGINE, serialized)
    if tactics:
        write_bytes(folder / _TACTICS, tactics)
    return {name: sha256_of_file((folder / name).checked()) for name in folder.names()}


def take_in(stage: StageRun, plan: BuildPlan, job: Job, folder: WorkPath, files: Mapping[str, str]) -> None:
    """Add what `make` made to the stage.

    Args:
        stage: of the target.
        plan: what the engine belongs to.
        job: which engine.
        folder: where its files are.
        files: what `make` returned.

    Raises:
        InputError: a file is another one now.
    """
    for name, digest in files.items():
        if sha256_of_file((folder / name).checked()) != digest:
            raise InputError("changed after it was built", where=str(folder / name), hint="build again")
    record = read_json((folder / _RECORD).checked(), most_bytes=DATA_BYTES)
    engine.commit(stage, job, (folder / _ENGINE).read_bytes(), record, plan.name)
    if _GRAPH in files:
        graph = (folder / _GRAPH).read_bytes()
        stage.bytes_artifact(engine.lowered_file(job, plan.name), engine.DERIVED, graph)
    if _TACTICS in files:
        stage.bytes_artifact(plan.tactics(job), "tactics", (folder / _TACTICS).read_bytes())


def recorded(ws: Workspace, plan: BuildPlan, job: Job) -> bytes:
    """The kernels that an earlier build chose.

    Raises:
        ManifestError: none are recorded.
        InputError: they are not trusted here.
    """
    if plan.tactics(job) not in ws.manifest().artifacts:
        raise ManifestError(
            "no recorded build to verify against",
            where=f"{ws.root}/{plan.tactics(job)}",
            hint="record one first: trt_builder build --reproducible record",
        )
    require_artifact(ws.root, plan.tactics(job), "tactics")
    return ws.artifact(plan.tactics(job)).read_bytes()


# -- on a node --------------------------------------------------------------------------------------------------------


def open_maker(
    root: Path,
    target: str,
    overrides: Sequence[str],
    policies: Sequence[str | None],
    reproduce: Mode | None,
    timings: Path | None,
) -> Callable[[Order], dict[str, str]]:
    """What makes engines, in a worker of a cluster. Arguments: see `trt_builder.build.build_all`."""
    ws, here = Workspace.open(root), targets.find(target)
    plans = {policy: plan_build(ws, read_config(ws, with_policy(overrides, policy)), here) for policy in policies}
    session = start(plans, timings_in(ws, timings), reproduce)

    def work(order: Order) -> dict[str, str]:
        plan = plans[order.policy]
        job = next(job for job in plan.jobs if job.component == order.component)
        folder = WorkPath(root, order.folder)
        return make(replace(session, options=plan.options), ws, plan, job, folder, reproduce)

    return work


def require_same(target: str, versions: Mapping[str, str]) -> None:
    """Refuse a node whose engines would be others.

    Args:
        target: what the command was asked to build for.
        versions: `trt_builder.build_plan.versions_of` where the command runs.

    Raises:
        EnvironmentLacks: it has no TensorRT, no GPU, or another one.
    """
    here = versions_of(targets.find(target))
    for name in sorted(versions.keys() | here.keys()):
        if here.get(name) != versions.get(name):
            raise EnvironmentLacks(
                f"{name} {here.get(name, 'none')}, and {versions.get(name, 'none')} where the command runs",
                hint="engines are for one kind of GPU and one TensorRT: use nodes that are alike",
            )
