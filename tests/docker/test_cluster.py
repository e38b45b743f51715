"""A Ray cluster of containers: a head and two workers run a data set as one container does."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.workspace import Workspace
from tests.docker.conftest import build
from tests.support import tiny_centerpoint
from tests.support.containers import ROOT, TAG, USER, Compose, image, let_in

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("engine")]

RAY_TAG = f"{TAG}-ray"
WORKERS = 2


@pytest.fixture
def cluster(volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Compose]:
    """Compose with a cluster, on a volume with the same workspace twice: ``one`` and ``two``."""
    pytest.importorskip("torch")
    monkeypatch.setenv("RAY", "yes")
    build("runtime-onnx", tag=RAY_TAG)
    frames = tiny_centerpoint.write_frames(tmp_path / "frames", [400] * 40)
    work = tiny_centerpoint.make_workspace(tmp_path / "work", frames).root
    for name in ("one", "two"):
        subprocess.run(["cp", "-r", str(work), str(volume / name)], check=True)
    let_in(frames)
    let_in(volume)
    compose = Compose(volume, frames)
    compose.variables |= {"TARGET_NAME": RAY_TAG, "COMPOSE_PROJECT_NAME": "awml-deploy-test-cluster"}
    try:
        _compose(compose, "--profile", "cluster", "up", "--detach", "--scale", f"cluster-worker={WORKERS}")
        _wait_for_nodes(compose, 1 + WORKERS)
        yield compose
    finally:
        _compose(compose, "--profile", "cluster", "down", "--timeout", "5")


def _compose(compose: Compose, *arguments: str) -> str:
    answer = subprocess.run(
        compose.command(*arguments), capture_output=True, text=True, check=False, cwd=ROOT, env=compose.variables
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def _wait_for_nodes(compose: Compose, count: int) -> None:
    deadline = time.monotonic() + 600
    nodes = 0
    while nodes < count:
        assert time.monotonic() < deadline, f"{nodes} of {count} nodes are there"
        time.sleep(1)
        status = subprocess.run(
            compose.command("exec", "-T", "cluster-head", "ray", "status"),
            capture_output=True, text=True, check=False, cwd=ROOT, env=compose.variables,
        )  # fmt: skip
        nodes = status.stdout.count(" 1 node_")


def test_a_cluster_runs_a_data_set_as_one_container_does(cluster: Compose) -> None:
    run = ("run", "--backend", "onnx", "--work")
    answer = cluster.run("runtime-onnx", *run, "/workspace/one")
    assert answer.returncode == 0, answer.stderr
    tool = ("exec", "-T", "cluster-head", "python3", "/app/entrypoint.py")
    _compose(cluster, *tool, *run, "/workspace/two", "--cluster", "auto")
    one, two = (Workspace.open(cluster.work / name) for name in ("one", "two"))
    stage = "run:onnx-cpu"
    assert two.manifest().stages[stage].fingerprint == one.manifest().stages[stage].fingerprint
    assert two.manifest().stages[stage].image == image("runtime-onnx").replace(f":{TAG}", f":{RAY_TAG}")
    files = [path for path, record in one.manifest().artifacts.items() if record.stage == stage]
    assert len(files) > 2
    for path in files:
        if not path.endswith(("samples.jsonl", "journal.jsonl")):  # latencies
            assert two.manifest().artifacts[path].sha256 == one.manifest().artifacts[path].sha256, path
    assert {path.stat().st_uid for path in two.root.rglob("*")} == {USER}
