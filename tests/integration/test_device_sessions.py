"""ONNX Runtime and PyTorch between CenterPoint's CUDA kernels: the same boxes as with the steps in NumPy.

The kernels run on the CPU (`tests.support.cuda_on_cpu`), the backends on the host memory that stands for the device's.
"""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("torch")

import torch

from runtime.backends import onnx, pytorch
from runtime.cuda.gpu import DeviceArray
from runtime.run import run
from shared.errors import InferenceError, UsageError
from shared.runs import Run
from shared.workspace import Workspace
from tests.support import cuda_on_cpu
from tests.support import tiny_centerpoint as tiny

pytestmark = pytest.mark.skipif(cuda_on_cpu.compiler() is None, reason="no C++ compiler here")

FRAMES = [300, 0, 1, 600]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny")
    work = tiny.make_workspace(root / "work", tiny.write_frames(root / "frames", FRAMES)).root
    run(work, "onnx", "cpu")
    return work


def host_tensor(array: DeviceArray, device: str) -> Any:
    count = int(np.prod(array.shape))
    memory = np.frombuffer((ctypes.c_float * count).from_address(array.address), np.float32)
    return torch.from_numpy(memory.reshape(array.shape))


@pytest.fixture
def work(exported: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    gpu = cuda_on_cpu.use(monkeypatch, tmp_path_factory.getbasetemp())
    for module in (onnx, pytorch):
        monkeypatch.setattr(module, "gpu_of_steps", lambda device, backend: gpu)
    monkeypatch.setattr(onnx, "_DEVICE", "cpu")
    monkeypatch.setattr(onnx, "_providers", lambda device: [("CPUExecutionProvider", {})])
    monkeypatch.setattr(pytorch, "_check_device", lambda device: None)
    monkeypatch.setattr(pytorch, "_tensor", host_tensor)
    monkeypatch.setattr(pytorch, "_on_stream", lambda stream, device: contextlib.nullcontext())
    monkeypatch.setattr(pytorch.export_passes, "move_to_device_pass", lambda program, device: program)
    return exported


@pytest.mark.parametrize("backend", ["onnx", "pytorch"])
def test_the_boxes_are_those_of_the_numpy_steps(work: Path, backend: str) -> None:
    run(work, backend, "cuda")
    on_device, in_numpy = (Run.open(work / f"runs/{name}") for name in (f"{backend}-cuda0", "onnx-cpu"))
    assert on_device.header.details["gpu"] == "CPU"
    assert "upload" in on_device.latencies[0]
    assert on_device.counters == in_numpy.counters
    assert sum(counters["boxes"] for counters in in_numpy.counters) > 10
    for index in range(len(FRAMES)):
        got, wanted = on_device.boxes(index), in_numpy.boxes(index)
        np.testing.assert_array_equal(got.labels, wanted.labels)
        for name in ("centers", "sizes", "yaws", "velocities", "scores"):
            np.testing.assert_allclose(getattr(got, name), getattr(wanted, name), rtol=1e-4, atol=1e-5, err_msg=name)
    for index in in_numpy.header.raw_samples:
        for name, value in in_numpy.raw(index).items():
            np.testing.assert_allclose(on_device.raw(index)[name], value, rtol=1e-4, atol=1e-5)


def test_onnx_runtime_has_one_lane(work: Path) -> None:
    ws = Workspace.open(work)
    files = {name: ws.artifact(path) for name, path in onnx.artifacts(ws, ws.spec()).items()}
    session = onnx.load(files, ws.spec(), onnx.Device("cuda"), None)
    assert isinstance(session, onnx.OnnxDeviceSession)
    session.open_lane()
    with pytest.raises(InferenceError, match=r"one request at a time.*--streams"):
        session.open_lane()


def test_without_pycuda_it_is_said_that_tensors_pass_through_the_host(caplog: pytest.LogCaptureFixture) -> None:
    from runtime.cuda.session import gpu_of_steps

    assert gpu_of_steps(onnx.Device("cuda"), "onnx") is None
    assert "onnx on cuda:0: pycuda is not installed" in caplog.text


def test_compiled_programs_answer_the_same(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def compile_nothing(module: Any, *, dynamic: bool) -> Any:
        asked.append(dynamic)
        return module

    monkeypatch.setattr(torch, "compile", compile_nothing)
    run(exported, "pytorch", "cpu", compiled=True)
    compiled = Run.open(exported / "runs/pytorch-cpu")
    assert compiled.header.details["compile"] is True
    assert asked == [True, True]
    run(exported, "pytorch", "cpu")
    plain = Run.open(exported / "runs/pytorch-cpu")
    assert "compile" not in plain.header.details
    np.testing.assert_array_equal(plain.boxes(0).centers, compiled.boxes(0).centers)


def test_a_backend_that_does_not_compile_says_so(exported: Path) -> None:
    with pytest.raises(UsageError, match=r"onnx does not compile; --backend pytorch does"):
        run(exported, "onnx", "cpu", compiled=True)
