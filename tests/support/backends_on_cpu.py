"""ONNX Runtime and PyTorch on the host memory that stands for a GPU's, between kernels on the CPU."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runtime.backends import onnx, pytorch
from runtime.cuda.gpu import DeviceArray
from tests.support import cuda_on_cpu


def use(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make ``cuda`` of both backends the CPU for a test; compiled kernels are kept in ``folder``."""
    gpu = cuda_on_cpu.use(monkeypatch, folder)
    for module in (onnx, pytorch):
        monkeypatch.setattr(module, "gpu_of_steps", lambda device, backend: gpu)
    monkeypatch.setattr(onnx, "_DEVICE", "cpu")
    monkeypatch.setattr(onnx, "_providers", lambda device: [("CPUExecutionProvider", {})])
    monkeypatch.setattr(pytorch, "_check_device", lambda device: None)
    monkeypatch.setattr(pytorch, "_tensor", _host_tensor)
    monkeypatch.setattr(pytorch, "_copied", lambda array, device: torch.from_numpy(array))
    monkeypatch.setattr(pytorch, "_on_stream", lambda stream, device: contextlib.nullcontext())
    monkeypatch.setattr(pytorch.export_passes, "move_to_device_pass", lambda program, device: program)


def _host_tensor(array: DeviceArray, device: str) -> Any:
    memory: Any = (ctypes.c_char * array.nbytes).from_address(array.address)
    return torch.from_numpy(np.frombuffer(memory, array.dtype).reshape(array.shape))
