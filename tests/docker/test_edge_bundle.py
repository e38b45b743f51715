"""Edge bundles: a workspace goes to a device with another Python, no packages, no network; what was done comes back.

The device is a second folder, Python 3.10 without site packages, and a network namespace of its own where the kernel
gives one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from docker.bundle import LOCKS, make_bundle
from shared.files import write_json
from shared.workspace import Workspace
from tests.support import tiny_centerpoint
from tests.support.pythons import find_python, find_uv, index_is_there

pytestmark = pytest.mark.packages

DEVICE_PYTHON = "3.10"
OTHER_PYTHON = "3.11"


@pytest.fixture(scope="module")
def uv() -> str:
    path = find_uv()
    if not index_is_there(path):
        pytest.skip("no package index can be reached")
    return path


@pytest.fixture(scope="module")
def bundles(uv: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles of runtime (with ONNX Runtime, which needs no GPU), verifier and trt_builder for Python 3.10 on x86.

    That of trt_builder is for Python 3.11 too.
    """
    out = tmp_path_factory.mktemp("dist")
    locks = {"runtime": "runtime-onnx", "verifier": "verifier", "trt_builder": "trt_builder"}
    machine = os.uname().machine
    platforms = {tool: [f"{DEVICE_PYTHON}-{machine}"] for tool in locks}
    platforms["trt_builder"].append(f"{OTHER_PYTHON}-{machine}")
    return {tool: make_bundle(tool, platforms[tool], out, LOCKS / f"{lock}.txt", uv) for tool, lock in locks.items()}


class Device:
    """What runs there: Python 3.10 that sees nothing of this environment."""

    def __init__(self, home: Path, bundles: dict[str, Path]) -> None:
        self._home = home
        self._bundles = bundles
        self._python = find_python(DEVICE_PYTHON)
        alone = ["unshare", "--net", "--map-root-user"]
        works = shutil.which("unshare") and subprocess.run([*alone, "true"], check=False, capture_output=True)
        self._alone = alone if works and works.returncode == 0 else []

    def run(self, tool: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        # -I: no environment variables, no user site; -S: no site packages of this Python.
        command = [*self._alone, self._python, "-I", "-S", str(self._bundles[tool]), *map(str, arguments)]
        variables = {"HOME": str(self._home), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=self._home, env=variables)


@pytest.fixture
def device(tmp_path: Path, bundles: dict[str, Path]) -> Device:
    home = tmp_path / "device"
    home.mkdir()
    return Device(home, bundles)


def _here(module: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    code = f"from {module} import cli; cli()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def _add_reference(work: Path) -> None:
    """What the exporter would have recorded of the training framework: here, PyTorch's own answers."""
    stage = Workspace.open(work).stage("reference", tool="exporter")
    with stage:
        shutil.copytree(work / "runs" / "pytorch-cpu", work / "reference")
        header = json.loads((work / "reference" / "run.json").read_text())
        write_json(work / "reference" / "run.json", header | {"backend": "framework"})
        for path in sorted((work / "reference").rglob("*")):
            if path.is_file() and path.suffix != ".jsonl":
                stage.add_artifact(str(path.relative_to(work)), "reference")


def test_a_workspace_goes_to_a_device_and_comes_back(tmp_path: Path, device: Device) -> None:
    pytest.importorskip("torch")
    frames = tiny_centerpoint.write_frames(tmp_path / "frames", [300, 500, 200, 400])
    work = tiny_centerpoint.make_workspace(tmp_path / "work", frames).root
    answer = _here("runtime.cli", "run", "--work", work, "--backend", "pytorch", "--device", "cpu")
    assert answer.returncode == 0, answer.stderr

    _add_reference(work)

    # There: a copy of the workspace and of the data, at other paths.
    there = tmp_path / "device" / "work"
    shutil.copytree(work, there)
    shutil.copytree(frames, tmp_path / "device" / "frames")
    shutil.rmtree(frames)
    answer = device.run(
        "runtime", "run", "--work", there, "--backend", "onnx", "--data", tmp_path / "device" / "frames"
    )
    assert answer.returncode == 0, answer.stderr
    answer = device.run("verifier", "verify", "--work", there)
    assert answer.returncode == 0, answer.stderr
    assert "passed" in answer.stdout
    answer = device.run("trt_builder", "build", "--work", there, "--if-available")
    assert answer.returncode == 0, answer.stderr
    assert device.run("verifier", "manifest", "check", "--work", there).returncode == 0

    # And back.
    answer = _here("shared.manifest_cli", "merge", "--work", work, there)
    assert answer.returncode == 0, answer.stderr
    merged = Workspace.open(work)
    stages = merged.manifest().stages
    assert {name: stage.status for name, stage in stages.items()} == {
        "export": "done", "reference": "done", "run:pytorch-cpu": "done", "run:onnx-cpu": "done", "verify": "done",
        "build": "skipped",
    }  # fmt: skip
    assert stages["run:onnx-cpu"].key["versions"]["python"].startswith(f"{DEVICE_PYTHON}.")
    for relative in merged.manifest().artifacts:
        merged.artifact(relative)


def test_both_sides_changed_the_same_stage(tmp_path: Path, device: Device) -> None:
    pytest.importorskip("torch")
    frames = tiny_centerpoint.write_frames(tmp_path / "frames", [300, 200])
    work = tiny_centerpoint.make_workspace(tmp_path / "work", frames).root
    there = tmp_path / "device" / "work"
    shutil.copytree(work, there)
    onnx_run = ("run", "--backend", "onnx", "--data", frames)
    assert _here("runtime.cli", *onnx_run, "--work", work).returncode == 0
    assert device.run("runtime", *onnx_run, "--work", there).returncode == 0
    before = (work / "manifest.json").read_bytes()
    answer = _here("shared.manifest_cli", "merge", "--work", work, there)
    assert answer.returncode == 3
    assert "stage run:onnx-cpu: here done" in answer.stderr
    assert (work / "manifest.json").read_bytes() == before
    assert _here("shared.manifest_cli", "merge", "--work", work, there, "--prefer", "theirs").returncode == 0
    kept = Workspace.open(work).manifest().stages["run:onnx-cpu"]
    assert kept == Workspace.open(there).manifest().stages["run:onnx-cpu"]


def test_another_python_gets_one_clear_line(bundles: dict[str, Path]) -> None:
    answer = subprocess.run(
        [sys.executable, str(bundles["verifier"]), "--help"], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 4
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"made for Python {DEVICE_PYTHON}" in answer.stderr
    assert f"make bundle TOOL=verifier PLATFORMS={here}-" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


def test_the_same_sources_make_the_same_bundle(uv: str, bundles: dict[str, Path], tmp_path: Path) -> None:
    platform = f"{DEVICE_PYTHON}-{os.uname().machine}"
    again = make_bundle("verifier", [platform], tmp_path, LOCKS / "verifier.txt", uv)
    assert again.read_bytes() == bundles["verifier"].read_bytes()


def test_a_folder_that_cannot_be_written(bundles: dict[str, Path], tmp_path: Path) -> None:
    python = find_python(DEVICE_PYTHON)
    blocked = tmp_path / "file"
    blocked.write_text("")
    answer = subprocess.run(
        [python, str(bundles["verifier"]), "--help"], capture_output=True, text=True, check=False,
        env={"AWML_DEPLOY_CACHE": str(blocked)},
    )  # fmt: skip
    assert answer.returncode == 4
    assert "AWML_DEPLOY_CACHE" in answer.stderr


def test_one_bundle_for_two_pythons(bundles: dict[str, Path], tmp_path: Path) -> None:
    """What is the same for both is in it once; each Python finds its own compiled packages."""
    bundle = bundles["trt_builder"]
    names = zipfile.ZipFile(bundle).namelist()
    assert [name for name in names if name.endswith("/click/__init__.py")] == ["site/common/click/__init__.py"]
    for version in (DEVICE_PYTHON, OTHER_PYTHON):
        answer = subprocess.run(
            [find_python(version), "-I", "-S", str(bundle), "manifest", "schema"],
            capture_output=True, text=True, check=False, env={"AWML_DEPLOY_CACHE": str(tmp_path / "cache")},
        )  # fmt: skip
        assert answer.returncode == 0, answer.stderr


def test_packages_that_cannot_be_had(uv: str, tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(f"click==8.5.1 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(SystemExit, match=r"packages of lock\.txt for Python 3\.10-aarch64 can't be installed"):
        make_bundle("trt_builder", ["3.10-aarch64"], tmp_path, lock, uv)


def test_an_edge_bundle_for_the_vehicle_has_wheels_of_its_processor(uv: str, tmp_path: Path) -> None:
    """JetPack's: nothing of it can run here, but its compiled parts are for the device."""
    bundle = make_bundle("trt_builder", ["3.10-aarch64"], tmp_path, LOCKS / "trt_builder.txt", uv)
    names = zipfile.ZipFile(bundle).namelist()
    compiled = [name for name in names if name.endswith(".so")]
    assert any("aarch64" in name for name in compiled)
    assert not any("x86_64" in name for name in compiled)
