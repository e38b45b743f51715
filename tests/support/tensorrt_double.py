"""A double of TensorRT's runtime: its engines are ONNX files that ONNX Runtime runs, on host memory.

With `tests.support.cuda_on_cpu` the whole TensorRT backend and the CUDA pipelines run on any machine.
"""

from __future__ import annotations

import ctypes
import itertools
import json
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from runtime import engine_times
from runtime.backends import tensorrt as backend
from runtime.models.centerpoint import device as centerpoint
from shared import cuda
from shared.workspace import Workspace
from tests.support import cuda_on_cpu
from tests.support.libcuda_on_cpu import HostLibrary

HEADER_BYTES = 64
Profile = Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]


class Severity(IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1


class TensorIOMode(IntEnum):
    INPUT = 1
    OUTPUT = 2


class DataType:
    FLOAT, HALF = np.dtype(np.float32), np.dtype(np.float16)


class ILogger:
    INTERNAL_ERROR, ERROR = Severity.INTERNAL_ERROR, Severity.ERROR

    def log(self, severity: Severity, message: str) -> None:
        raise NotImplementedError


class IProfiler:
    def report_layer_time(self, layer_name: str, ms: float) -> None:
        raise NotImplementedError


class Engine:
    """An ONNX file; the profile gives the ranges of dynamic inputs. As in 8.6, the first context takes the profile."""

    device_memory_size = 1 << 10

    def __init__(self, onnx: bytes, profile: Profile, logger: ILogger) -> None:
        self.session = ort.InferenceSession(onnx, providers=["CPUExecutionProvider"])
        self.logger = logger
        self._profile = profile
        self._inputs = {tensor.name: tensor for tensor in self.session.get_inputs()}
        self._outputs = {tensor.name: tensor for tensor in self.session.get_outputs()}
        self._names = [*self._inputs, *self._outputs]
        self.contexts = 0

    @property
    def num_io_tensors(self) -> int:
        return len(self._names)

    def get_tensor_name(self, index: int) -> str:
        return self._names[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> np.dtype[Any]:
        return DataType.FLOAT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        tensor = {**self._inputs, **self._outputs}[name]
        return tuple(size if isinstance(size, int) else -1 for size in tensor.shape)

    def get_tensor_profile_shape(self, name: str, index: int) -> Any:
        return self._profile[name]

    def create_execution_context_without_device_memory(self) -> Context:
        return Context(self)

    def create_execution_context(self) -> Context:
        context = Context(self)
        context.device_memory = 1
        return context


class Context:
    """What is bound to an engine. Every binding has to be there when it runs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self.active_optimization_profile = 0 if engine.contexts == 0 else -1
        engine.contexts += 1
        self.device_memory = 0
        self.profiler: IProfiler | None = None

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self._shapes:
            return self._shapes[name]
        answers = self._engine.session.run([name], {key: np.zeros(s, np.float32) for key, s in self._shapes.items()})
        return tuple(answers[0].shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address, name
        self._addresses[name] = address
        return True

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        return False

    def execute_async_v3(self, stream: int) -> bool:
        engine = self._engine
        if self.active_optimization_profile < 0:
            engine.logger.log(Severity.ERROR, "Assertion mOptimizationProfile >= 0 failed.")
            return False
        if self.device_memory == 0 or len(self._addresses) != engine.num_io_tensors:
            engine.logger.log(Severity.ERROR, "not everything is bound\nby anybody")
            return False
        names = list(engine._outputs)
        outputs = engine.session.run(names, {name: self._read(name, shape) for name, shape in self._shapes.items()})
        for name, array in zip(names, outputs, strict=True):
            ctypes.memmove(self._addresses[name], np.ascontiguousarray(array).ctypes.data, array.nbytes)
        if self.profiler is not None:
            self.profiler.report_layer_time("whole", 0.5)
        return True

    def _read(self, name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        count = int(np.prod(shape))
        return np.frombuffer((ctypes.c_float * count).from_address(self._addresses[name]), np.float32).reshape(shape)


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
        length = int.from_bytes(data[HEADER_BYTES : HEADER_BYTES + 4], "little")
        text, onnx = data[HEADER_BYTES + 4 :][:length], data[HEADER_BYTES + 4 :][length:]
        if not onnx:
            self._logger.log(Severity.ERROR, "magic tag does not match")
            return None
        return Engine(onnx, json.loads(text), self._logger)


def plan(onnx: bytes, profile: Profile, version: str = "8.6.0", magic: bytes = b"ftrt") -> bytes:
    """What the double deserializes, with the header of a real plan."""
    numbers = bytes(int(part) for part in version.split("."))
    header = (magic + bytes(20) + numbers).ljust(HEADER_BYTES, b"\0")
    text = json.dumps(profile).encode()
    return header + len(text).to_bytes(4, "little") + text + onnx


def add_engines(
    ws: Workspace,
    *,
    target: str = "trt8.6.0-sm90-fp16",
    version: str = "8.6.0",
    architecture: str = "sm90",
    **header: Any,
) -> None:
    """Engines of a workspace's ONNX files, recorded as trt_builder does."""
    parameters = ws.spec().parameters
    points, voxels = parameters["max_points_per_voxel"], parameters["max_voxels"]
    nx, ny, _ = parameters["grid_size"]
    channels = parameters["encoder_channels"]
    image = (1, channels, ny, nx)
    profiles: list[Profile] = [
        {"input_features": ((20, points, 10), (50, points, 10), (voxels, points, 10))},
        {"spatial_features": (image, image, image)},
    ]
    with ws.stage(f"build:{target}", tool="trt_builder") as stage:
        for component, profile in zip(ws.spec().components, profiles, strict=True):
            name = f"tensorrt/{target}/{component.name}.engine"
            with stage.artifact(name, kind="engine") as path:
                path.write_bytes(plan(ws.path(component.onnx).read_bytes(), profile, version, **header))
            with stage.artifact(f"{name}.json", kind="engine-record") as path:
                path.write_text("{}")
            record = {"engine": name, "tensorrt": {"version": version}, "architecture": architecture}
            stage.result("engines", f"{target}/{component.name}", record)


def use(monkeypatch: pytest.MonkeyPatch, folder: Path, *, version: str = "8.6.0") -> None:
    """Make the TensorRT backend run on the double, and the steps on the CPU."""
    gpu = cuda_on_cpu.use(monkeypatch, folder)
    gpu.architecture = "sm_90"
    module: Any = ModuleType("tensorrt")
    module.__version__ = version
    module.ILogger, module.IProfiler, module.Runtime, module.TensorIOMode = ILogger, IProfiler, Runtime, TensorIOMode
    module.nptype, module.DataType = np.dtype, DataType
    monkeypatch.setattr(backend, "trt", module)
    monkeypatch.setattr(engine_times, "trt", module)
    monkeypatch.setattr(backend, "_LOGGERS", [])
    monkeypatch.setattr(backend, "_MESSAGES", [])
    monkeypatch.setattr(backend, "package_versions", lambda names: {"tensorrt": version})
    monkeypatch.setattr(backend, "open_gpu", lambda device: gpu)
    library = HostLibrary()
    monkeypatch.setattr(cuda, "library", lambda: library)
    # Every bucket is an engine, which takes its time here.
    monkeypatch.setattr(centerpoint, "BUCKETS", 5)
    clock = itertools.count(1)
    monkeypatch.setattr(cuda_on_cpu.HostEvent, "milliseconds_until", lambda self, later: 0.001 * (next(clock) % 7 + 1))
