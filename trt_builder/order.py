"""What is to be made for a target: its jobs and options, the stage they belong to, and the lock that guards it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from shared.files import explain_os_errors
from shared.stages import StageRun
from shared.workspace import Workspace
from trt_builder import gpu, settings
from trt_builder.settings import Job, Options
from trt_builder.target import Target

if TYPE_CHECKING:
    from shared.config import DeployConfig

_log = logging.getLogger("build")

TOOL = "trt_builder"


@dataclass(frozen=True)
class Order:
    """What is to be made: the jobs and options of a target, under a name, in a stage."""

    name: str
    options: Options
    jobs: list[Job]
    stage: StageRun

    def tactics(self, job: Job) -> str:
        """Where the recorded choice of kernels goes."""
        return f"tensorrt/{self.name}/{job.component}.tactics"

    def rejected(self, ws: Workspace, job: Job) -> Path:
        """Where the record of an engine goes that is not what was asked for."""
        return ws.path(f"tensorrt/{self.name}/{job.component}.rejected.json")


def make_order(ws: Workspace, config: DeployConfig, target: Target) -> Order:
    """Everything that a config asks for on a target, checked.

    Raises:
        ConfigError: a policy or profile that does not fit the graphs.
        ManifestError: an ONNX file is missing or not the one in the manifest.
    """
    options, jobs = settings.options(config), settings.jobs(ws, config)
    name = target.name(config.tensorrt.precision_policy)
    return Order(name, options, jobs, _stage_of(ws, name, target, options, jobs))


def _stage_of(ws: Workspace, name: str, target: Target, options: Options, jobs: list[Job]) -> StageRun:
    """The stage of a target; its key holds everything that an engine depends on."""
    hardware = target.gpu
    return ws.stage(
        f"build:{name}",
        tool=TOOL,
        config={"options": options.as_key(), "components": {job.component: job.as_key() for job in jobs}},
        inputs={f"onnx:{job.component}": job.onnx_hash for job in jobs},
        versions={
            target.tensorrt.flavor: target.tensorrt.version,
            "architecture": target.architecture,
            "gpu": f"{hardware.name}, {hardware.multiprocessors} SM, {hardware.memory} bytes" if hardware else "none",
            "driver": (gpu.driver_version() or "none") if hardware else "none",
        },
    )


@contextlib.contextmanager
def one_at_a_time(ws: Workspace, order: Order) -> Iterator[None]:
    """Hold a target: a second process waits for the first, and then finds everything up to date."""
    lock = FileLock(ws.path(f".locks/target-{order.name}.lock"))
    with explain_os_errors(ws.root):
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _log.info("%s: another process is building it, waiting", order.name)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
