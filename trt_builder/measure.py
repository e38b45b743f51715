"""Times on the GPU: of each layer (in a run of its own, since profiling slows the engine down), and of the whole."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from shared.errors import InferenceError
from trt_builder import cuda
from trt_builder.cuda import Cuda

_WARM_UP_RUNS = 5
_PROFILED_RUNS = 10


def layer_times(trt: Any, engine: Any) -> dict[str, float]:
    """Mean milliseconds per layer over a few runs with the opt shapes of the first profile."""
    sums: dict[str, float] = defaultdict(float)

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            sums[layer_name] += ms

    with cuda.primary_context() as gpu:
        context = prepare(trt, engine, gpu)
        stream = gpu.stream()
        for _ in range(_WARM_UP_RUNS):
            _enqueue(context, stream)
        gpu.synchronize(stream)
        profiler = Profiler()
        context.profiler = profiler
        for _ in range(_PROFILED_RUNS):
            _enqueue(context, stream)
            gpu.synchronize(stream)
        del context
    return {name: total / _PROFILED_RUNS for name, total in sums.items()}


def engine_times(trt: Any, engine: Any, runs: int, shapes: Mapping[str, tuple[int, ...]] | None = None) -> list[float]:
    """Milliseconds on the GPU of each of ``runs`` requests, without copies.

    Args:
        trt: the TensorRT module.
        engine: the engine.
        runs: how many, after a warm-up.
        shapes: input shapes; the first profile's opt shapes where none is given.
    """
    with cuda.primary_context() as gpu:
        context = prepare(trt, engine, gpu, shapes)
        stream = gpu.stream()
        for _ in range(max(_WARM_UP_RUNS, runs // 10)):
            _enqueue(context, stream)
        events = [(gpu.event(), gpu.event()) for _ in range(runs)]
        for start, end in events:
            gpu.record(start, stream)
            _enqueue(context, stream)
            gpu.record(end, stream)
        gpu.synchronize(stream)
        times = [gpu.milliseconds(start, end) for start, end in events]
        del context
    return times


def prepare(trt: Any, engine: Any, gpu: Cuda, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Any:
    """A context with input shapes set and every tensor bound; floating-point inputs hold random numbers.

    Raises:
        InferenceError: a shape that the engine does not take.
    """
    context = engine.create_execution_context()
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    for name in inputs:
        shape = (shapes or {}).get(name) or opt_shape(engine, name)
        if not context.set_input_shape(name, shape):
            raise InferenceError(f"the engine does not take shape {list(shape)}", where=name)
    generator = np.random.default_rng(0)
    for name in names:
        kind = engine.get_tensor_dtype(name)
        shape = tuple(context.get_tensor_shape(name))
        address = gpu.allocate(int(np.prod(shape)) * kind.itemsize)
        # NumPy has no BF16; such inputs stay zero.
        if name in inputs and kind in (trt.DataType.FLOAT, trt.DataType.HALF):
            gpu.upload(address, generator.standard_normal(shape).astype(trt.nptype(kind)).tobytes())
        context.set_tensor_address(name, address)
    return context


def opt_shape(engine: Any, name: str) -> tuple[int, ...]:
    """The shape that an input is tuned for: its own where that is fixed, else the first profile's."""
    shape = tuple(engine.get_tensor_shape(name))
    return shape if -1 not in shape else tuple(engine.get_tensor_profile_shape(name, 0)[1])


def _enqueue(context: Any, stream: int) -> None:
    if not context.execute_async_v3(stream):
        raise InferenceError("the engine does not run")
