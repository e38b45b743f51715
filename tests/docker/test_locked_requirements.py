"""Locked requirements: they install with their hashes on every Python they are for, and hold what the tools import."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.pythons import ROOT, find_python, find_uv, index_is_there

pytestmark = pytest.mark.packages

LOCKS = ROOT / "requirements" / "lock"
INSTALLED = [
    *(("trt_builder", "trt_builder", version) for version in ("3.10", "3.11", "3.12")),
    *(("runtime-onnx", "runtime", version) for version in ("3.10", "3.11", "3.12")),
    *(("runtime-tensorrt", "runtime", version) for version in ("3.10", "3.11", "3.12")),
    *(("verifier", "verifier", version) for version in ("3.10", "3.11", "3.12")),
    *(("evaluator", "evaluator", version) for version in ("3.11", "3.12")),
]
# Lock files with the Pythons and processors of the images and bundles that they are for. PyTorch for the CPU is on no
# public index.
MACHINES = ("x86_64", "aarch64")
PINNED = [
    *((name, version, machine) for name in ("trt_builder", "runtime-tensorrt", "verifier", "runtime-onnx", "pycuda",
      "build-tools", "pip", "cluster") for version in ("3.10", "3.12") for machine in MACHINES),
    *((name, "3.11", machine) for name in ("verifier", "evaluator", "runtime-onnx", "runtime-pytorch", "torch-cuda",
      "exporter", "docs") for machine in MACHINES),
    ("tensorrt-rtx", "3.11", "x86_64"),
]  # fmt: skip


@pytest.fixture(scope="module")
def uv() -> str:
    path = find_uv()
    if not index_is_there(path):
        pytest.skip("no package index can be reached")
    return path


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize(("lock", "tool", "version"), INSTALLED)
def test_a_fresh_environment_from_the_lock_runs_the_tool(
    uv: str, tmp_path: Path, lock: str, tool: str, version: str
) -> None:
    answer = _run(uv, "venv", "--quiet", "--python", find_python(version), tmp_path / "venv")
    assert answer.returncode == 0, answer.stderr
    python = tmp_path / "venv" / "bin" / "python"
    requirements = LOCKS / f"{lock}.txt"
    answer = _run(
        uv, "pip", "install", "--quiet", "--python", python, "--require-hashes", "--no-deps", "-r", requirements
    )
    assert answer.returncode == 0, answer.stderr
    answer = _run(uv, "pip", "check", "--python", python)
    assert answer.returncode == 0, answer.stderr
    answer = _run(python, "-c", f"from {tool}.cli import cli; cli(['--help'])")
    assert answer.returncode == 0, answer.stderr


def test_the_exporters_lock_installs(uv: str, tmp_path: Path) -> None:
    """All but PyTorch; its packages name dependencies that are left out on purpose, so `pip check` has no say."""
    python = tmp_path / "venv" / "bin" / "python"
    assert _run(uv, "venv", "--quiet", "--python", find_python("3.11"), tmp_path / "venv").returncode == 0
    command = (uv, "pip", "install", "--quiet", "--python", python, "--require-hashes", "--no-deps")
    answer = _run(*command, "-r", LOCKS / "exporter.txt")
    assert answer.returncode == 0, answer.stderr
    answer = _run(python, "-c", "from exporter.cli import cli; cli(['--help'])")
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize(("lock", "version", "machine"), PINNED)
def test_every_pinned_version_is_in_the_index(uv: str, lock: str, version: str, machine: str, tmp_path: Path) -> None:
    answer = _run(
        uv, "pip", "install", "--quiet", "--dry-run", "--target", tmp_path / "site", "--python-version", version,
        "--python-platform", f"{machine}-manylinux_2_28", "--require-hashes", "--no-deps", "-r", LOCKS / f"{lock}.txt",
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr


def test_a_changed_hash_is_refused(uv: str, tmp_path: Path) -> None:
    text = (LOCKS / "verifier.txt").read_text().splitlines()
    start = next(index for index, line in enumerate(text) if line.startswith("click=="))
    tampered = tmp_path / "tampered.txt"
    tampered.write_text("\n".join([text[start], f"    --hash=sha256:{'0' * 64}"]) + "\n")
    answer = _run(uv, "pip", "install", "--target", tmp_path / "site", "--require-hashes", "--no-deps", "-r", tampered)
    assert answer.returncode != 0
    assert "ash" in answer.stderr
    assert not (tmp_path / "site" / "click").exists()
