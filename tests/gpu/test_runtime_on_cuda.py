"""ONNX Runtime and PyTorch on a GPU: the same boxes as with NumPy's steps, the CPU's tensors, or what is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

import torch

from runtime.model import HostOnly, open_model
from runtime.pipeline import DevicePipeline, build_pipeline
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


def run_of(work: Path, backend: str, device: str, **options: Any) -> Run:
    run(work, backend, device, **options)
    return Run.open(work / "runs" / f"{backend}-{device.replace(':', '')}")


@pytest.mark.parametrize(("backend", "compiled"), [("onnx", False), ("pytorch", False), ("pytorch", True)])
def test_tensors_are_those_of_the_cpu(work: Path, backend: str, compiled: bool) -> None:
    needs(backend)
    on_cpu = run_of(work, backend, "cpu")
    on_gpu = run_of(work, backend, "cuda:0", compiled=compiled)
    assert on_gpu.header.device == "cuda:0"
    assert on_gpu.header.details.get("compile", False) is compiled
    for index in on_cpu.header.raw_samples:
        for name, value in on_cpu.raw(index).items():
            np.testing.assert_allclose(on_gpu.raw(index)[name], value, atol=TF32 * np.abs(value).max(), err_msg=name)


@pytest.mark.parametrize(("backend", "compiled"), [("onnx", False), ("pytorch", False), ("pytorch", True)])
def test_boxes_are_those_of_the_numpy_steps(work: Path, backend: str, compiled: bool) -> None:
    needs(backend)
    pytest.importorskip("pycuda", reason="pycuda is not installed here; the steps run in NumPy")
    model = open_model(work, backend, "cuda:0", None, None, compiled=compiled)
    session, pipeline = model.load()
    assert isinstance(pipeline, DevicePipeline)
    # On the same session: another one may choose other algorithms for its convolutions.
    in_numpy = build_pipeline(model.spec, HostOnly(session))
    boxes = 0
    for index in range(len(model.dataset)):
        points = pipeline.read(model.dataset.sample(index)).data
        first, again, wanted = pipeline.infer(points), pipeline.infer(points), in_numpy.infer(points)
        assert first.counters == wanted.counters
        boxes += len(wanted.predictions)
        np.testing.assert_array_equal(first.predictions.labels, wanted.predictions.labels)
        for name in ("centers", "sizes", "yaws", "velocities", "scores"):
            ours, repeated, theirs = (getattr(each.predictions, name) for each in (first, again, wanted))
            np.testing.assert_array_equal(ours, repeated, err_msg=name)
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4, err_msg=name)
    assert boxes > 10


@pytest.mark.parametrize("backend", ["onnx", "pytorch"])
def test_as_a_command_it_ends_as_it_should(work: Path, backend: str) -> None:
    needs(backend)
    for command in (["run", "--force"], ["bench", "--seconds", "0.5", "--warm-up", "2"]):
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
