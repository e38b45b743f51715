"""The runtime on a GPU: the same boxes as on the CPU, or an error that says what is missing."""

from __future__ import annotations

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


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny")
    return tiny.make_workspace(root / "work", tiny.write_frames(root / "frames", [500, 0, 1, 900])).root


def assert_same(work: Path, backend: str) -> None:
    run(work, backend, "cpu")
    run(work, backend, "cuda")
    on_cpu, on_gpu = (Run.open(work / "runs" / f"{backend}-{device}") for device in ("cpu", "cuda0"))
    assert on_gpu.header.device == "cuda:0"
    assert on_gpu.counters == on_cpu.counters
    for index in range(len(on_cpu)):
        np.testing.assert_allclose(on_gpu.boxes(index).centers, on_cpu.boxes(index).centers, atol=1e-2)
        np.testing.assert_allclose(on_gpu.boxes(index).scores, on_cpu.boxes(index).scores, atol=1e-3)
    for index in on_cpu.header.raw_samples:
        for name, value in on_cpu.raw(index).items():
            # Convolutions in TF32, PyTorch's and ONNX Runtime's default on such a GPU: 10 bits of mantissa.
            np.testing.assert_allclose(on_gpu.raw(index)[name], value, atol=5e-3 * np.abs(value).max())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this torch is a CPU build; install a CUDA build")
def test_pytorch(work: Path) -> None:
    assert_same(work, "pytorch")


def test_onnx(work: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        assert_same(work, "onnx")
    else:
        with pytest.raises(EnvironmentLacks, match="CUDAExecutionProvider was asked for"):
            run(work, "onnx", "cuda")


def test_a_gpu_that_is_not_there(work: Path) -> None:
    with pytest.raises(EnvironmentLacks):
        run(work, "pytorch", f"cuda:{torch.cuda.device_count()}")
