"""TensorRT backend, 8.6 to 11.x, by the tensor address API that all of them have."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from runtime.backends import Tensors, require_interface
from runtime.backends._engine_files import check_architecture, check_header, engines_of, origin_of, records
from runtime.cuda.gpu import DeviceArray, Gpu, open_gpu
from runtime.cuda.session import Bound, DeviceSession, Lane, Origin
from runtime.devices import Device
from shared.engines import (
    activation_memory,
    as_taken,
    deserialize,
    dtype_of,
    lies_channels_last,
    profile_shapes,
    tensor_names,
)
from shared.errors import EnvironmentLacks, InferenceError, ModelLoadError
from shared.lazy import lazy_import
from shared.spec import ComponentSpec, ModelSpec
from shared.workspace import Workspace

if TYPE_CHECKING:
    from typing_extensions import Self

trt = lazy_import("tensorrt", install="pip install the tensorrt wheel that fits the driver, or use the runtime image")
_log = logging.getLogger("tensorrt")

PACKAGES = ("tensorrt", "pycuda", "numpy")
KIND = "engine"


def artifacts(workspace: Workspace, spec: ModelSpec, target: str | None = None) -> dict[str, str]:
    """The engine of each component, see `engines_of`."""
    return engines_of(workspace, spec, target)


def load(files: Mapping[str, Path], spec: ModelSpec, device: Device, threads: int | None) -> TensorRTSession:  # noqa: ARG001 (engines have no threads)
    """Load engines onto a GPU. What a file says of itself is checked before CUDA starts.

    Raises:
        EnvironmentLacks: TensorRT, pycuda or the GPU is missing.
        ModelLoadError: an engine of another TensorRT or GPU, or not the component of the spec.
    """
    if device.is_cpu:
        raise EnvironmentLacks("TensorRT runs on GPUs", where="tensorrt on cpu", hint="choose --device cuda")
    known = records(files)
    for name, path in files.items():
        check_header(path, known[name], str(trt.__version__))
    gpu = open_gpu(device)
    for name, path in files.items():
        check_architecture(path, known[name], gpu)
    runtime = trt.Runtime(_logger())
    plans = {
        component.name: Plan(
            runtime,
            files[component.name],
            version_compatible=known[component.name].get("version_compatible", False),
        )
        for component in spec.components
    }
    engines = {component.name: _checked(plans[component.name], component) for component in spec.components}
    origins = {
        component.name: functools.partial(origin_of, files[component.name], known[component.name], component)
        for component in spec.components
    }
    return TensorRTSession(gpu, plans, engines, origins, {"tensorrt": trt.__version__, "gpu": gpu.name})


class Plan:
    """A serialized engine, in host memory.

    Every context gets an engine of its own: in 8.6 a profile belongs to one context at a time, and a second context of
    the same engine can't run.
    """

    def __init__(self, runtime: Any, path: Path, *, version_compatible: bool) -> None:
        self.path = path
        self._version_compatible = version_compatible
        # Engines need the runtime that loaded them.
        self._runtime = runtime
        self._bytes = path.read_bytes()

    def engine(self) -> Any:
        """An engine, with its weights in device memory.

        Raises:
            ModelLoadError: TensorRT refuses.
        """
        engine = deserialize(self._runtime, self._bytes, version_compatible=self._version_compatible)
        if engine is None:
            raise ModelLoadError(
                f"TensorRT can't load it: {last_error()}", where=str(self.path), hint="build the engines again"
            )
        return engine


class TensorRTSession(DeviceSession):
    """The components as engines."""

    several_lanes = True

    def __init__(
        self,
        gpu: Gpu,
        plans: dict[str, Plan],
        engines: dict[str, Any],
        origins: Mapping[str, Callable[[], Origin | None]],
        settings: dict[str, Any],
    ) -> None:
        self.gpu = gpu
        self.settings = settings
        self._plans = plans
        self._origins = origins
        # These answer questions; contexts have their own.
        self._engines = engines
        self._hosts: dict[str, _HostBinding] = {}

    def run(self, component: str, inputs: Tensors) -> dict[str, npt.NDArray[Any]]:
        """Run one component on arrays in host memory.

        Fewer rows than the engine's profile are filled up with the first one again, which puts at most the same values
        into the same places: a row of zeros could be taken for one at the first place of a map.

        Raises:
            InferenceError: a shape outside the profile, or TensorRT failed.
        """
        if component not in self._hosts:
            self._hosts[component] = _HostBinding(self.gpu, component, self._plans[component].engine())
        return self._hosts[component].run(inputs)

    def rows(self, component: str) -> tuple[int, int | None]:
        """See `DeviceSession`."""
        engine = self._engines[component]
        low, _, high = profile_shapes(engine, tensor_names(trt, engine, inputs=True)[0])
        return low[0], high[0]

    def dtype(self, component: str, tensor: str) -> np.dtype[Any]:
        """See `DeviceSession`."""
        return dtype_of(trt, self._engines[component], tensor)

    def channels_last(self, component: str, tensor: str) -> bool:
        """See `DeviceSession`."""
        return lies_channels_last(trt, self._engines[component], tensor)

    def origin(self, component: str) -> Origin | None:
        """See `DeviceSession`."""
        find = self._origins.get(component)
        return None if find is None else find()

    def as_built(self) -> Self:
        """See `DeviceSession`."""
        return type(self)(self.gpu, self._plans, self._engines, {}, {**self.settings, "steps": "engines"})

    def new_engine(self, component: str) -> Any:
        """An engine that has no context yet, for measuring it."""
        return self._plans[component].engine()

    def open_lane(self) -> TensorRTLane:
        """See `DeviceSession`."""
        scratch = max(activation_memory(engine) for engine in self._engines.values())
        return TensorRTLane(self.gpu, self._plans, scratch)


class TensorRTLane(Lane):
    """A stream, and one block of scratch memory for all contexts of the lane: they never run at the same time."""

    recordable = True

    def __init__(self, gpu: Gpu, plans: Mapping[str, Plan], scratch: int) -> None:
        self.stream = gpu.stream()
        self._gpu = gpu
        self._plans = plans
        self._scratch = gpu.allocate((scratch,), np.uint8)

    def bind(
        self, component: str, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]
    ) -> TensorRTBound:
        """See `Lane`."""
        return TensorRTBound(
            self._gpu, component, self._plans[component].engine(), self.stream, self._scratch, inputs, outputs
        )


class TensorRTBound(Bound):
    """A context of an engine with its shapes and addresses set: a context per shape, as CUDA graphs want it."""

    def __init__(
        self,
        gpu: Gpu,
        component: str,
        engine: Any,
        stream: Any,
        scratch: DeviceArray,
        inputs: Mapping[str, DeviceArray],
        outputs: Mapping[str, DeviceArray],
    ) -> None:
        self._component = component
        self._stream = stream.handle
        self.context = new_context(engine, scratch, stream)
        for name in tensor_names(trt, engine, inputs=True):
            set_shape(self.context, engine, component, name, inputs[name].shape)
        self.outputs = {}
        for name in tensor_names(trt, engine, inputs=False):
            shape = tuple(self.context.get_tensor_shape(name))
            given = outputs.get(name)
            dtype = dtype_of(trt, engine, name)
            array = gpu.allocate(shape, dtype) if given is None else replace(given, shape=shape, dtype=dtype)
            self.outputs[name] = array
        # Everything that the context points to lives as long as it does.
        self._keep = (engine, scratch, dict(inputs))
        for name, array in (*inputs.items(), *self.outputs.items()):
            set_address(self.context, component, name, array.address)

    def enqueue(self) -> None:
        """See `Bound`."""
        if not self.context.execute_async_v3(self._stream):
            raise InferenceError(f"TensorRT failed: {last_error()}", where=self._component)


class _HostBinding:
    """An engine with buffers on both sides, allocated once for the largest shapes of the profile."""

    def __init__(self, gpu: Gpu, component: str, engine: Any) -> None:
        self._gpu = gpu
        self._component = component
        self._engine = engine
        self._stream = gpu.stream()
        self._scratch = gpu.allocate((activation_memory(engine),), np.uint8)
        self._context = new_context(engine, self._scratch, self._stream)
        self._inputs = tensor_names(trt, engine, inputs=True)
        self._outputs = tensor_names(trt, engine, inputs=False)
        for name in self._inputs:
            set_shape(self._context, engine, component, name, profile_shapes(engine, name)[2])
        self._device, self._host = {}, {}
        for name in (*self._inputs, *self._outputs):
            shape = tuple(self._context.get_tensor_shape(name))
            self._device[name] = gpu.allocate(shape, dtype_of(trt, engine, name))
            self._host[name] = gpu.pinned((int(np.prod(shape)),), dtype_of(trt, engine, name))
            set_address(self._context, component, name, self._device[name].address)

    def run(self, inputs: Tensors) -> dict[str, npt.NDArray[Any]]:
        """See `TensorRTSession.run`."""
        rows = padded = len(inputs[self._inputs[0]])
        for name in self._inputs:
            array = inputs[name]
            padded = max(len(array), profile_shapes(self._engine, name)[0][0])
            set_shape(self._context, self._engine, self._component, name, (padded, *array.shape[1:]))
            width = int(np.prod(array.shape[1:]))
            staged = self._host[name][: padded * width].reshape(padded, width)
            staged[: len(array)] = as_taken(trt, self._engine, name, array).reshape(len(array), width)
            staged[len(array) :] = staged[0] if len(array) else 0
            self._gpu.to_device(staged, self._device[name].address, self._stream)
        if not self._context.execute_async_v3(self._stream.handle):
            raise InferenceError(f"TensorRT failed: {last_error()}", where=self._component)
        results = {}
        for name in self._outputs:
            shape = tuple(self._context.get_tensor_shape(name))
            results[name] = self._host[name][: int(np.prod(shape))].reshape(shape)
            self._gpu.to_host(self._device[name], results[name], self._stream)
        self._stream.synchronize()
        return {
            name: (array[:rows] if padded > rows and array.shape[0] == padded else array).copy()
            for name, array in results.items()
        }


def new_context(engine: Any, scratch: DeviceArray, stream: Any) -> Any:
    """The context of an engine that has none yet, working in ``scratch``.

    The allocation strategy came with 10.0; 11 lacks the older name. ``set_device_memory`` came with 10.9.
    """
    strategies = getattr(trt, "ExecutionContextAllocationStrategy", None)
    if strategies is None:
        context = engine.create_execution_context_without_device_memory()
    else:
        context = engine.create_execution_context(strategies.USER_MANAGED)
    if context is None:
        raise ModelLoadError(f"TensorRT makes no context: {last_error()}")
    setter = getattr(context, "set_device_memory", None)
    if setter is None:
        context.device_memory = scratch.address
    else:
        setter(scratch.address, scratch.nbytes)
    if context.active_optimization_profile != 0:
        context.set_optimization_profile_async(0, stream.handle)
    return context


def set_shape(context: Any, engine: Any, component: str, name: str, shape: tuple[int, ...]) -> None:
    """Set an input's shape.

    Raises:
        InferenceError: outside the engine's profile.
    """
    low, _, high = profile_shapes(engine, name)
    fits = len(shape) == len(low) and all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True))
    if not fits or not context.set_input_shape(name, shape):
        raise InferenceError(
            f"input '{name}' has shape {list(shape)}, the engine takes {list(low)} to {list(high)}",
            where=component,
            hint="change the component's tensorrt_profile and build again",
        )


def set_address(context: Any, component: str, name: str, address: int) -> None:
    """Bind a tensor to device memory.

    Raises:
        InferenceError: TensorRT refuses.
    """
    if not context.set_tensor_address(name, address):
        raise InferenceError(f"tensor '{name}' can't be bound: {last_error()}", where=component)


_MESSAGES: list[str] = []
_LOGGERS: list[Any] = []


def last_error() -> str:
    """What TensorRT complained about last."""
    return _MESSAGES[-1] if _MESSAGES else "no message"


def _logger() -> Any:
    """TensorRT's logger: it takes one a process."""
    if not _LOGGERS:

        class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                    _MESSAGES.append(message.splitlines()[0] if message else "")
                _log.debug("%s", message)

        _LOGGERS.append(Logger())
    return _LOGGERS[0]


def _checked(plan: Plan, component: ComponentSpec) -> Any:
    """An engine whose inputs and outputs are those of the spec, names and shapes."""
    engine = plan.engine()
    # TensorRT gives -1 for a dynamic axis.
    inputs, outputs = (
        {
            name: [None if size < 0 else size for size in engine.get_tensor_shape(name)]
            for name in tensor_names(trt, engine, inputs=is_input)
        }
        for is_input in (True, False)
    )
    require_interface(component, inputs, outputs, where=str(plan.path), hint="build the engines again")
    for name in (*inputs, *outputs):
        lies_channels_last(trt, engine, name)
    return engine
