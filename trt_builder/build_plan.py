"""What a build makes: the engines of a target with their options, the stage they belong to, and its lock."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared import cuda
from shared.config.tensorrt_section import TensorRT as Options
from shared.files import explain_os_errors, sha256_of_file
from shared.locks import LOCKS, Lock
from shared.stages import StageRun
from shared.trust import require_plugins
from shared.work_path import WorkPath
from shared.workspace import Workspace
from trt_builder.jobs import Job, make_jobs
from trt_builder.target import Target

if TYPE_CHECKING:
    from shared.config import DeployConfig

_log = logging.getLogger("build")

TOOL = "trt_builder"
# An override by which the command itself names the libraries.
_PLUGINS = "tensorrt.plugin_libraries="
# Options that do not change an engine by themselves: what follows from them is in the jobs, and of plugins the content.
_NOT_IN_KEY = {"precision_policy", "fixed_profile", "input_formats", "plugin_libraries"}


@dataclass(frozen=True)
class BuildPlan:
    """The engines of a target.

    Attributes:
        target: what they are for.
        name: the target's name with the policy, ``trt8.6.0-sm90-fp16``: their folder under ``tensorrt/``.
        options: section ``tensorrt`` of the config.
        plugins: path of each plugin library to its sha256.
        jobs: an engine each.
        stage: the stage that they are built in.
    """

    target: Target
    name: str
    options: Options
    plugins: dict[str, str]
    jobs: list[Job]
    stage: StageRun

    def tactics(self, job: Job) -> str:
        """The artifact that records which kernels a build chose."""
        return f"tensorrt/{self.name}/{job.component}.tactics"

    def rejected(self, ws: Workspace, job: Job) -> WorkPath:
        """Where the record of an engine goes that does not meet its policy."""
        return ws.place(f"tensorrt/{self.name}/{job.component}.rejected.json")


def read_config(ws: Workspace, overrides: Sequence[str]) -> DeployConfig:
    """The deploy config in the manifest, with overrides.

    Raises:
        ManifestError: nothing was exported here yet, or by a version whose config differs; or the config names plugin
            libraries, and is not of this machine.
        ConfigError: an override is wrong.
    """
    from shared.config import from_resolved
    from shared.config.load import build
    from shared.config.yaml_tree import Tree

    where = ws.root / "manifest.json"
    recorded = ws.config()
    config = from_resolved(recorded, str(where))
    if overrides:
        config = build(Tree(recorded, {}), where, overrides)
    if not any(override.startswith(_PLUGINS) for override in overrides):
        require_plugins(ws.root, config.tensorrt.plugin_libraries)
    return config


def plan_build(ws: Workspace, config: DeployConfig, target: Target) -> BuildPlan:
    """Everything that a config asks for on a target, checked.

    Raises:
        ConfigError: a policy or profile that does not fit the graphs.
        ManifestError: an ONNX file is missing or not the one in the manifest.
        InputError: a plugin library is missing.
    """
    plugins = {str(path): sha256_of_file(path) for path in config.tensorrt.plugin_libraries}
    jobs = make_jobs(ws, config)
    name = target.name(config.tensorrt.precision_policy)
    stage = ws.stage(
        f"build:{name}",
        tool=TOOL,
        config={
            "options": options_key(config.tensorrt, plugins),
            "components": {job.component: job.as_key() for job in jobs},
        },
        inputs={f"onnx:{job.component}": job.onnx_hash for job in jobs},
        versions=versions_of(target),
    )
    return BuildPlan(target, name, config.tensorrt, plugins, jobs, stage)


def versions_of(target: Target) -> dict[str, str]:
    """What engines depend on beside graph and options, for a stage's key."""
    gpu = target.gpu
    return {
        target.tensorrt.flavor: target.tensorrt.version,
        "architecture": target.architecture,
        "gpu": f"{gpu.name}, {gpu.multiprocessors} SM, {gpu.memory} bytes" if gpu else "none",
        "driver": (cuda.driver_version() or "none") if gpu else "none",
    }


def options_key(options: Options, plugins: Mapping[str, str]) -> dict[str, Any]:
    """The options in a stage's key and an engine's record; of plugins the content, since one that moved is the same."""
    key = options.model_dump(mode="json", exclude=_NOT_IN_KEY)
    if options.tactic_sources is not None:
        key["tactic_sources"] = sorted(options.tactic_sources)
    return {**key, "plugins": sorted(plugins.values())}


@contextlib.contextmanager
def one_at_a_time(ws: Workspace, plan: BuildPlan) -> Iterator[None]:
    """Hold the lock of a target: a second process waits for the first, and then finds everything up to date."""
    lock = Lock(ws.place(f"{LOCKS}/target-{plan.name}.lock"))
    with explain_os_errors(ws.root):
        if not lock.acquire(wait=False):
            _log.info("%s: another process is building it; waiting", plan.name)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
