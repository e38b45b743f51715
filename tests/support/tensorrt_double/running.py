"""The double's runtime: its engines are ONNX files that ONNX Runtime runs, on host memory."""

from __future__ import annotations

import ctypes
import functools
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx

from shared.lazy import lazy_import
from tests.support.tensorrt_double import plans
from tests.support.tensorrt_double.plans import Plan

ort = lazy_import("onnxruntime")


class Engine:
    """An ONNX file; the profile gives the ranges of dynamic inputs. As in 8.6, the first context takes the profile."""

    device_memory_size = device_memory_size_v2 = 1 << 10

    def __init__(self, trt: Any, plan: Plan, logger: Any) -> None:
        self.trt, self.plan, self.logger = trt, plan, logger
        self.contexts = 0

    @functools.cached_property
    def session(self) -> Any:
        """ONNX Runtime, started when somebody asks for a tensor."""
        return ort.InferenceSession(self.plan.onnx, providers=["CPUExecutionProvider"])

    @functools.cached_property
    def _inputs(self) -> dict[str, tuple[int, ...]]:
        return _shapes(onnx.load_from_string(self.plan.onnx).graph.input)

    @functools.cached_property
    def _outputs(self) -> dict[str, tuple[int, ...]]:
        return _shapes(onnx.load_from_string(self.plan.onnx).graph.output)

    def create_engine_inspector(self) -> Any:
        text = json.dumps({"Layers": self.plan.layers})
        return SimpleNamespace(get_engine_information=lambda kind: text)

    @property
    def num_io_tensors(self) -> int:
        return len(self._inputs) + len(self._outputs)

    def get_tensor_name(self, index: int) -> str:
        return [*self._inputs, *self._outputs][index]

    def get_tensor_mode(self, name: str) -> Any:
        modes = self.trt.TensorIOMode
        return modes.INPUT if name in self._inputs else modes.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return self.trt.DataType[self.plan.inputs.get(name, ("FLOAT", "LINEAR"))[0]]

    def get_tensor_format(self, name: str) -> Any:
        return self.trt.TensorFormat[self.plan.inputs.get(name, ("FLOAT", "LINEAR"))[1]]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return {**self._inputs, **self._outputs}[name]

    def get_tensor_profile_shape(self, name: str, index: int) -> Any:
        return self.plan.profile[name]

    def create_execution_context_without_device_memory(self) -> Context:
        return self.trt.IExecutionContext(self)  # type: ignore[no-any-return]

    def create_execution_context(self, strategy: Any = None) -> Context:
        context: Context = self.trt.IExecutionContext(self)
        if strategy is None:
            context.device_memory = 1
        return context


def _shapes(values: Any) -> dict[str, tuple[int, ...]]:
    """By name; -1 for axes without a size."""
    return {value.name: tuple(axis.dim_value or -1 for axis in value.type.tensor_type.shape.dim) for value in values}


class Context:
    """What is bound to an engine. Every binding has to be there when it runs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self.active_optimization_profile = 0 if engine.contexts == 0 else -1
        engine.contexts += 1
        self.device_memory = 0
        self.profiler: Any = None

    def set_device_memory(self, address: int, size: int) -> None:
        self.device_memory = address

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
            engine.logger.log(engine.trt.ILogger.Severity.ERROR, "Assertion mOptimizationProfile >= 0 failed.")
            return False
        if self.device_memory == 0 or len(self._addresses) != engine.num_io_tensors:
            engine.logger.log(engine.trt.ILogger.Severity.ERROR, "not everything is bound\nby anybody")
            return False
        names = list(engine._outputs)
        outputs = engine.session.run(names, {name: self._read(name, shape) for name, shape in self._shapes.items()})
        for name, array in zip(names, outputs, strict=True):
            ctypes.memmove(self._addresses[name], np.ascontiguousarray(array).ctypes.data, array.nbytes)
        if self.profiler is not None:
            self.profiler.report_layer_time("whole", 0.5)
        return True

    def _read(self, name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        dtype = self._engine.trt.nptype(self._engine.get_tensor_dtype(name))
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        values = np.frombuffer((ctypes.c_ubyte * size).from_address(self._addresses[name]), dtype)
        if self._engine.get_tensor_format(name).name == "HWC8":
            values = np.moveaxis(values.reshape(shape[0], *shape[2:], shape[1]), -1, 1)
        return values.reshape(shape).astype(np.float32)


class Runtime:
    """As in every release, plans with code for the host are refused until that is allowed."""

    def __init__(self, trt: Any, behavior: Any, logger: Any) -> None:
        self._trt, self._behavior, self._logger = trt, behavior, logger
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, data: bytes) -> Any:
        plan = plans.read(data)
        reason = ""
        if plan is None:
            reason = "magic tag does not match"
        elif plan.version_compatible and not self.engine_host_code_allowed:
            reason = "engine_host_code_allowed must be set to load a version compatible engine"
        if reason or self._behavior.refuses_to_load:
            self._logger.log(self._trt.ILogger.Severity.ERROR, reason or "no")
            return None
        return self._trt.ICudaEngine(self._trt, plan, self._logger)
