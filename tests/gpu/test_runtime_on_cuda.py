"""ONNX Runtime and PyTorch on a GPU: the same boxes as with NumPy's steps, the CPU's tensors, or what is missing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

import torch

from runtime.run import run
from shared.errors import EnvironmentLacks
from shared.runs import Run
from tests.support import tiny_centerpoint as tiny

pytestmark = pytest.mark.gpu

# Convolutions in TF32, PyTorch's and ONNX Runtime's default on such a GPU, have 10 bits of mantissa.
TF32 = 5e-3


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny")
    return tiny.make_workspace(root / "work", tiny.write_frames(root / "frames", [500, 0, 1, 900])).root


def needs(backend: str) -> None:
    if backend == "pytorch" and not torch.cuda.is_available():
        pytest.skip("this torch is a CPU build; install a CUDA build")
    if backend == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            pytest.skip("this onnxruntime is a CPU build; install onnxruntime-gpu")


def run_of(work: Path, backend: str, device: str, **options: object) -> Run:
    run(work, backend, device, **options)  # type: ignore[arg-type]
    return Run.open(work / "runs" / f"{backend}-{device.replace(':', '')}")


def assert_same(ours: Run, theirs: Run, tolerance: float) -> None:
    for index in range(len(theirs)):
        np.testing.assert_array_equal(ours.boxes(index).labels, theirs.boxes(index).labels)
        for name in ("centers", "sizes", "yaws", "velocities", "scores"):
            got, wanted = (getattr(each.boxes(index), name) for each in (ours, theirs))
            np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize(("backend", "compiled"), [("onnx", False), ("pytorch", False), ("pytorch", True)])
def test_on_the_gpu(work: Path, backend: str, compiled: bool, tmp_path: Path) -> None:
    needs(backend)
    on_cpu = run_of(work, backend, "cpu")
    on_gpu = run_of(work, backend, "cuda:0", compiled=compiled)
    assert on_gpu.header.device == "cuda:0"
    assert on_gpu.header.details.get("compile", False) is compiled
    if importlib.util.find_spec("pycuda") is not None:
        assert "upload" in on_gpu.latencies[0]
    for index in on_cpu.header.raw_samples:
        for name, value in on_cpu.raw(index).items():
            np.testing.assert_allclose(on_gpu.raw(index)[name], value, atol=TF32 * np.abs(value).max(), err_msg=name)
    (work / "runs" / f"{backend}-cuda0").rename(tmp_path / "first")
    first = Run.open(tmp_path / "first")
    assert_same(run_of(work, backend, "cuda:0", compiled=compiled, force=True), first, 0)
    in_numpy = run_of(work, backend, "cuda:0", compiled=compiled, steps="numpy")
    assert first.counters == in_numpy.counters
    assert sum(counters["boxes"] for counters in first.counters) > 10
    assert_same(first, in_numpy, 1e-4)


@pytest.mark.parametrize("backend", ["onnx", "pytorch"])
def test_as_a_command_it_ends_as_it_should(work: Path, backend: str) -> None:
    needs(backend)
    for command in (["run", "--force"], ["bench", "--seconds", "0.5"]):
        call = [sys.executable, "-c", "from runtime.cli import cli; cli()", command[0], "--work", str(work)]
        done = subprocess.run(
            [*call, "--backend", backend, "--device", "cuda:0", *command[1:]],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def test_onnx_runtime_without_cuda(work: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(EnvironmentLacks, match="CUDAExecutionProvider was asked for"):
        run(work, "onnx", "cuda")


@pytest.mark.parametrize("backend", ["onnx", "pytorch"])
def test_a_gpu_that_is_not_there(work: Path, backend: str) -> None:
    with pytest.raises(EnvironmentLacks):
        run(work, backend, f"cuda:{torch.cuda.device_count()}")
