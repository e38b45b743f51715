"""A Ray cluster of several nodes on this machine, a model that takes its time on it, and commands that use both.

The model is a tiny CenterPoint on a backend of another package: ONNX Runtime, slowed down so that all workers get work,
in which a frame of more than 200 voxels ends the process. So that a run can be disturbed, each worker waits before its
25th frame while there is a file (`Site.held`).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FRAMES = 96
_OBJECT_STORE = 80 << 20

BACKEND = """
import os
import time
from pathlib import Path

from runtime.backends import onnx
from runtime.backends.onnx import KIND, artifacts

PACKAGES = ("numpy",)
GATE = Path("{gate}")


class Slow:
    def __init__(self, session):
        self.session = session
        self.settings = session.settings
        self.frames = 0

    def run(self, component, inputs):
        if component == "pts_voxel_encoder":
            if len(next(iter(inputs.values()))) > 200:
                os._exit(1)
            time.sleep(0.05)
            self.frames += 1
            while self.frames > 24 and GATE.exists():
                time.sleep(0.01)
        return self.session.run(component, inputs)


def load(files, spec, device, threads):
    return Slow(onnx.load(files, spec, device, threads))
"""


@dataclass(frozen=True)
class Site:
    """Folders of a module's tests.

    Attributes:
        root: a temporary folder.
        work: a workspace with an exported model; each test takes a copy.
        environment: of the commands: where the backend is found.
    """

    root: Path
    work: Path
    environment: dict[str, str]

    @property
    def gate(self) -> Path:
        """The file that workers wait for the end of."""
        return self.root / "gate"

    @contextlib.contextmanager
    def held(self) -> Iterator[Callable[[], None]]:
        """No worker does more than its first frames in the block, or until what it yields is called."""
        self.gate.touch()
        try:
            yield self.gate.unlink
        finally:
            self.gate.unlink(missing_ok=True)

    def command(self, *words: str) -> list[str]:
        """`runtime` with arguments."""
        return [sys.executable, "-m", "runtime.cli", *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `runtime` to its end."""
        return subprocess.run(
            self.command(*words), cwd=self.root, env=self.environment, capture_output=True, text=True, check=False
        )

    @contextlib.contextmanager
    def running(self, *words: str) -> Iterator[Running]:
        """Run `runtime` beside the block, which waits for its end."""
        with (self.root / "output.txt").open("w+") as output:
            process = subprocess.Popen(
                self.command(*words), cwd=self.root, env=self.environment, stdout=output, stderr=subprocess.STDOUT
            )
            try:
                yield Running(process, self.root / "output.txt")
            finally:
                process.kill()
                process.wait()


@dataclass(frozen=True)
class Running:
    """A command that runs, and the file that it prints to."""

    process: subprocess.Popen[bytes]
    file: Path

    def wait_until(self, what: Callable[[], object], seconds: float = 300) -> None:
        """Wait until ``what`` holds; the command must not end before."""
        deadline = time.monotonic() + seconds
        while not what():
            assert self.process.poll() is None, f"ended too early:\n{self.output()}"
            assert time.monotonic() < deadline, f"it did not come about:\n{self.output()}"
            time.sleep(0.05)

    def end(self, seconds: float = 600) -> int:
        """Wait for the end; returns the exit code."""
        return self.process.wait(seconds)

    def output(self) -> str:
        """What it has printed."""
        return self.file.read_text()


class Nodes:
    """The nodes of a cluster; the head does no work itself, the first other node lives as long as the cluster."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": _OBJECT_STORE},
        )
        self.address = str(self._cluster.address)
        self.first = self.add()

    def add(self, **options: Any) -> Any:
        """A node that can hold one worker."""
        return self._cluster.add_node(num_cpus=1, object_store_memory=_OBJECT_STORE, **options)

    def _count(self) -> int:
        return sum(node["Alive"] for node in self._cluster.global_state.node_table())

    def wait_for(self, count: int, seconds: float = 300) -> None:
        """Wait until so many nodes are alive, the head included."""
        deadline = time.monotonic() + seconds
        while self._count() != count:
            assert time.monotonic() < deadline, "the node did not join"
            time.sleep(0.2)

    @contextlib.contextmanager
    def joined_in(self, prefix: list[str], **variables: str) -> Iterator[None]:
        """A node that can hold one worker, started by a command behind ``prefix``, with other variables.

        Args:
            prefix: words before the command.
            variables: of its environment.
        """
        ray = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
        place = ["--address", self.address, "--num-cpus", "1", "--object-store-memory", str(_OBJECT_STORE)]
        count = self._count()
        node = subprocess.Popen(
            [*prefix, *ray, "start", "--block", *place],
            env={**os.environ, **variables}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            self.wait_for(count + 1)
            yield
        finally:
            node.terminate()
            node.wait(30)

    @contextlib.contextmanager
    def of_another_version(self, version: str) -> Iterator[None]:
        """What the head says of itself: that it is of another version of Ray."""
        store = self._cluster.head_node.get_gcs_client()
        key, namespace = b"CLUSTER_METADATA", b"cluster"
        said = store.internal_kv_get(key, namespace)
        store.internal_kv_put(key, json.dumps({**json.loads(said), "ray_version": version}).encode(), True, namespace)
        try:
            yield
        finally:
            store.internal_kv_put(key, said, True, namespace)

    def kill(self, node: Any) -> None:
        """End a node as a power cut does."""
        self._cluster.remove_node(node, allow_graceful=False)

    def kill_head(self) -> None:
        """End the head as a power cut does."""
        self._cluster.head_node.kill_gcs_server(check_alive=False)
        self.kill(self._cluster.head_node)

    def end(self) -> None:
        """End all nodes."""
        self._cluster.shutdown()


@contextlib.contextmanager
def cluster_of(nodes: int) -> Iterator[Nodes]:
    """A cluster with so many nodes that work."""
    cluster = Nodes()
    try:
        for _ in range(nodes - 1):
            cluster.add()
        yield cluster
    finally:
        cluster.end()


def workers_of(node: Any) -> list[int]:
    """Process ids of the workers of ours on a node."""
    (raylet,) = node.all_processes["raylet"]
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == raylet.process.pid and (folder / "cmdline").read_bytes().startswith(b"ray::Worker"):
                found.append(int(folder.name))
    return found


def finished_pieces(work: Path) -> int:
    """How many pieces of a run lie in a workspace."""
    return len(list(work.glob("runs/.*.pieces-*/*/finished.json")))


def kill(process: int) -> None:
    """End a process as the kernel does when memory runs out."""
    os.kill(process, signal.SIGKILL)


@contextlib.contextmanager
def stopped(process: int) -> Iterator[None]:
    """The process does nothing in the block."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)
