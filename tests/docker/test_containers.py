"""Tools in their images: shut in, stage after stage on a shared volume, killed in mid-write, two at once."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from shared.runs import Run
from shared.workspace import Workspace
from tests.support import tiny_centerpoint
from tests.support.containers import ROOT, USER, Compose, docker, image, let_in
from tests.support.report_workspaces import classification, detection2d, detection3d

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("images")]

# Verifier and evaluator are to stay below 400 MB on a slim Python base, of which the largest have 150 MB.
MOST_ADDED = 250e6
BUILT = ("verifier", "evaluator", "runtime-onnx", "trt_builder")
BASE = os.environ.get("BASE_IMAGE", "python:3.11-slim-bookworm")
FRAMES = 60

# Runs inside a container; lists the packages as tools that write bills of materials (SBOM) find them.
PACKAGES = """
import importlib.metadata, json, site
found = importlib.metadata.distributions(path=site.getsitepackages()[:1])
print(json.dumps({package.metadata["Name"]: package.version for package in found}))
"""

# Runs inside a container; says what its user can do there.
PROBE = """
import json, os, pathlib, socket
def fails(action):
    try:
        action()
    except OSError:
        return True
    return False
lines = pathlib.Path("/proc/self/status").read_text().splitlines()
status = dict(line.split(":\\t", 1) for line in lines if ":\\t" in line)
print(json.dumps({
    "uid": os.getuid(),
    "capabilities": int(status["CapEff"], 16),
    "no_new_privileges": status["NoNewPrivs"],
    "code_is_read_only": fails(lambda: open("/app/shared/new.py", "w")) and fails(lambda: open("/opt/venv/new", "w")),
    "root_is_read_only": fails(lambda: open("/new", "w")) and fails(lambda: open("/var/new", "w")),
    "data_is_read_only": fails(lambda: open("/data/new", "w")),
    "interfaces": [name for _, name in socket.if_nameindex() if name != "lo"],
    "no_network": fails(lambda: socket.create_connection(("1.1.1.1", 53), timeout=2)),
}))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A workspace after an export, and its frames."""
    pytest.importorskip("torch")
    root = tmp_path_factory.mktemp("exported")
    frames = tiny_centerpoint.write_frames(root / "frames", [400] * FRAMES)
    return tiny_centerpoint.make_workspace(root / "work", frames).root, frames


@pytest.fixture
def compose(volume: Path, exported: tuple[Path, Path]) -> Compose:
    """Compose on a volume that holds a copy of the workspace, as ``tiny``."""
    work, frames = exported
    subprocess.run(["cp", "-r", str(work), str(volume / "tiny")], check=True)
    let_in(frames)
    let_in(volume)
    return Compose(volume, frames)


RUN_ONNX = ("run", "--work", "/workspace/tiny", "--backend", "onnx")


# -- the images -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", BUILT)
def test_an_image_says_what_it_is_and_is_not_root(service: str) -> None:
    about = json.loads(docker("image", "inspect", image(service)).stdout)[0]["Config"]
    assert about["User"] == "10001:10001"
    assert about["Labels"]["org.opencontainers.image.version"] == "0.test"
    assert about["Labels"]["org.opencontainers.image.revision"] == "0123abc"
    assert about["Labels"]["org.opencontainers.image.base.name"] == BASE
    assert about.get("Healthcheck") is None


@pytest.mark.parametrize("service", BUILT)
def test_an_image_tells_a_bill_of_materials_what_its_lock_pins(compose: Compose, service: str) -> None:
    answer = compose.run(service, "-c", PACKAGES, options=("--entrypoint", "/opt/venv/bin/python3"))
    assert answer.returncode == 0, answer.stderr
    found = {canonicalize_name(name): version for name, version in json.loads(answer.stdout).items()}
    lines = (ROOT / "requirements" / "lock" / f"{service}.txt").read_text().splitlines()
    locked = [Requirement(line.rstrip(" \\")) for line in lines if "==" in line and not line.startswith(" ")]
    python = {"python_version": "3.11", "python_full_version": "3.11.0"}
    used = [pin for pin in locked if pin.marker is None or pin.marker.evaluate(python)]
    assert found == {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in used}


@pytest.mark.parametrize("service", ["verifier", "evaluator"])
def test_small_images_are_small(service: str) -> None:
    whole, below = (json.loads(docker("image", "inspect", name).stdout)[0]["Size"] for name in (image(service), BASE))
    assert whole - below < MOST_ADDED


def test_a_container_is_shut_in(compose: Compose) -> None:
    answer = compose.run("evaluator", "-c", PROBE, options=("--entrypoint", "/opt/venv/bin/python3"))
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == {
        "uid": USER, "capabilities": 0, "no_new_privileges": "1", "code_is_read_only": True, "root_is_read_only": True,
        "data_is_read_only": True, "interfaces": [], "no_network": True,
    }  # fmt: skip


def test_pip_settings_of_the_build_are_in_no_image(compose: Compose, tmp_path: Path) -> None:
    marker = "user-of-the-mirror-4711"
    (tmp_path / "pip.conf").write_text(f"[global]\n# {marker}\ntimeout = 61\n")
    answer = subprocess.run(
        compose.command("build", "verifier"), capture_output=True, text=True, check=False, cwd=ROOT,
        env=compose.variables | {"PIP_CONF": str(tmp_path / "pip.conf")},
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert marker not in docker("history", "--no-trunc", image("verifier")).stdout
    search = ["-c", f"grep -rls {marker} /etc /opt /app /tmp /root; true"]
    answer = compose.run("verifier", *search, options=("--entrypoint", "bash"))
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == ""


def test_an_image_with_another_tensorrt_than_its_pin_does_not_start(compose: Compose) -> None:
    answer = compose.run("trt_builder", "--help", options=("-e", "AWML_DEPLOY_TENSORRT=tensorrt==10.8"))
    assert answer.returncode == 4
    assert "error: this image is pinned to tensorrt==10.8, and tensorrt can't be imported" in answer.stderr


def test_an_image_that_finds_another_version_than_its_pin_does_not_start(compose: Compose, rtx_image: str) -> None:
    compose.variables |= {"TARGET": "rtx", "TARGET_NAME": rtx_image}
    answer = compose.run("trt_builder", "--help", options=("-e", "AWML_DEPLOY_TENSORRT=tensorrt_rtx==1.6"))
    assert answer.returncode == 4
    assert "error: this image is pinned to tensorrt_rtx==1.6, and finds tensorrt_rtx 1.7." in answer.stderr


# -- stages -----------------------------------------------------------------------------------------------------------


def test_a_tool_that_runs_too_early_says_what_is_missing(compose: Compose) -> None:
    answer = compose.run("verifier", "verify", "--work", "/workspace/nothing")
    assert answer.returncode == 3
    assert "no manifest here" in answer.stderr


def test_stages_on_a_shared_volume(compose: Compose) -> None:
    answer = compose.run("runtime-onnx", *RUN_ONNX, "--num-samples", "4")
    assert answer.returncode == 0, answer.stderr
    answer = compose.run("trt_builder", "build", "--work", "/workspace/tiny", "--if-available")
    assert answer.returncode == 0, answer.stderr
    answer = compose.run("manifest", "check", "--work", "/workspace/tiny")
    assert answer.returncode == 0, answer.stderr
    work = compose.work / "tiny"
    stages = Workspace.open(work).manifest().stages
    assert stages["run:onnx-cpu"].status == "done"
    assert stages["run:onnx-cpu"].image == image("runtime-onnx")
    assert stages["build"].status == "skipped"
    assert stages["build"].reason is not None
    assert "tensorrt" in stages["build"].reason
    assert {path.stat().st_uid for path in work.rglob("*")} == {USER}
    # A second call finds nothing to do, in a new container with another host name.
    answer = compose.run("runtime-onnx", *RUN_ONNX, "--num-samples", "4")
    assert "up to date" in answer.stderr


@pytest.mark.parametrize("make", [detection3d, detection2d, classification])
def test_every_task_is_evaluated_and_reported_with_pictures(
    make: Callable[[Path], Workspace], volume: Path, tmp_path: Path
) -> None:
    shutil.move(make(tmp_path).root, volume / "task")
    let_in(volume)
    compose = Compose(volume, tmp_path / "data")
    for command in ("evaluate", "report"):
        answer = compose.run("evaluator", command, "--work", "/workspace/task", "--force")
        assert answer.returncode == 0, answer.stderr
    page = (volume / "task" / "report" / "index.html").read_text()
    data = re.search(r'<script type="application/json" id="frames-data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    frames = json.loads(data[1])["frames"]
    assert frames and all(frame["media"] for frame in frames)


def test_engines_are_built_without_a_gpu(compose: Compose, rtx_image: str) -> None:
    """TensorRT for RTX, in the image that is pinned to it: no GPU, no network, read-only."""
    compose.variables |= {"TARGET": "rtx", "TARGET_NAME": rtx_image}
    answer = compose.run("trt_builder", "build", "--work", "/workspace/tiny", "--target", "rtx")
    assert answer.returncode == 0, answer.stderr
    manifest = Workspace.open(compose.work / "tiny").manifest()
    assert [stage.status for name, stage in manifest.stages.items() if name.startswith("build:rtx")] == ["done"]
    engines = [path for path in manifest.artifacts if path.endswith(".engine")]
    assert len(engines) == 2
    assert (compose.work / "tiny" / engines[0]).read_bytes().startswith(b"vtrt")


def test_a_manifest_cannot_lead_out_of_the_volume(compose: Compose) -> None:
    work = compose.work / "tiny"
    (work / "onnx" / "pts_voxel_encoder.onnx").unlink()
    (work / "onnx" / "pts_voxel_encoder.onnx").symlink_to("/etc/passwd")
    answer = compose.run("runtime-onnx", *RUN_ONNX)
    assert answer.returncode == 3
    assert "is a symbolic link; nothing in a workspace may be one" in answer.stderr


# -- kills, and two at once -------------------------------------------------------------------------------------------


def _journal_lines(work: Path) -> int:
    journals = list((work / "runs").glob(".onnx-cpu.attempt-*/journal.jsonl"))
    return len(journals[0].read_text().splitlines()) if journals else 0


def _wait_for_samples(work: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 600
    while _journal_lines(work) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no sample was finished"
        time.sleep(0.01)


# Python in a container imports it: a run waits in its fifth sample, however late a kill comes.
WAITS = """
import time
from shared import sample_journal

class Waits(sample_journal.SampleJournal):
    def add(self, index, *about):
        while index == 4:
            time.sleep(0.1)
        super().add(index, *about)

sample_journal.SampleJournal = Waits
"""


@pytest.mark.parametrize("signal", ["KILL", "TERM"])
def test_a_container_killed_in_mid_write_loses_nothing(compose: Compose, signal: str, tmp_path: Path) -> None:
    work, site = compose.work / "tiny", tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(WAITS)
    let_in(site)
    waits = ("--volume", f"{site}:/site:ro", "--env", "PYTHONPATH=/site:/app")
    name, process = compose.start("runtime-onnx", *RUN_ONNX, options=waits)
    _wait_for_samples(work, 4, process)
    assert docker("kill", "--signal", signal, name).returncode == 0
    process.communicate(timeout=600)
    assert process.returncode == {"KILL": 137, "TERM": 143}[signal]
    workspace = Workspace.open(work)
    assert workspace.manifest().stages["run:onnx-cpu"].status == {"KILL": "running", "TERM": "failed"}[signal]
    assert not (work / "runs" / "onnx-cpu" / "predictions.npz").exists()
    finished = _journal_lines(work)
    assert finished == 4

    answer = compose.run("runtime-onnx", *RUN_ONNX)
    assert answer.returncode == 0, answer.stderr
    assert workspace.manifest().stages["run:onnx-cpu"].status == "done"
    assert compose.run("manifest", "check", "--work", "/workspace/tiny").returncode == 0
    assert len(Run.open(work / "runs" / "onnx-cpu")) == FRAMES


def test_two_services_at_once_lose_nothing(compose: Compose) -> None:
    _, run = compose.start("runtime-onnx", *RUN_ONNX, "--num-samples", "8")
    _, build = compose.start("trt_builder", "build", "--work", "/workspace/tiny", "--if-available")
    _, same_run = compose.start("runtime-onnx", *RUN_ONNX, "--num-samples", "8")
    for process in (run, build, same_run):
        output, errors = process.communicate(timeout=600)
        assert process.returncode == 0, output + errors
    manifest = Workspace.open(compose.work / "tiny").manifest()
    statuses = {name: stage.status for name, stage in manifest.stages.items()}
    assert statuses == {"export": "done", "build": "skipped", "run:onnx-cpu": "done"}
    for relative in manifest.artifacts:
        Workspace.open(compose.work / "tiny").artifact(relative)
