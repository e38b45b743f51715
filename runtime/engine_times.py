"""Bare TensorRT engines, measured as trtexec measures them, so that a pipeline's overhead stands beside it.

trtexec 8.6 to 10 copies inputs and outputs in every iteration, launches kernel by kernel and waits blocking; trtexec 11
leaves the copies out, launches a CUDA graph and spins. Both warm up for 200 ms, measure for at least ten iterations and
three seconds, keep two iterations in flight, and take the GPU's compute time between two events around a launch.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from runtime.backends.tensorrt import TensorRTLane, TensorRTSession, trt
from runtime.cuda.gpu import DeviceArray, driver
from runtime.cuda.graph import Event, Graph

LIKE = ("trtexec-10", "trtexec-11")

_WARM_UP_SECONDS = 0.2
_MIN_ITERATIONS = 10
_PROFILED_RUNS = 20

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class EngineTimes:
    """What trtexec reports, iteration by iteration.

    Attributes:
        compute_ms: on the GPU.
        latency_ms: with the copies, where there are any.
        enqueue_ms: on the host.
        throughput: iterations a second; two are in flight, so it is not the inverse of the latency.
    """

    compute_ms: list[float]
    latency_ms: list[float]
    enqueue_ms: list[float]
    throughput: float


class _Slot:
    """One of the two iterations in flight: buffers, a bound engine, and its events."""

    def __init__(self, session: TensorRTSession, lane: TensorRTLane, component: str, shapes: Shapes, like: str) -> None:
        gpu = session.gpu
        self.copies = like == "trtexec-10"
        self._lane = lane
        self._inputs = random_inputs(session, component, shapes)
        self._bound = lane.bind(component, self._inputs, {})
        self._host_inputs = {name: gpu.pinned(array.shape, array.dtype) for name, array in self._inputs.items()}
        self._host_outputs = {name: gpu.pinned(array.shape, array.dtype) for name, array in self._bound.outputs.items()}
        for name, array in self._inputs.items():
            driver.memcpy_dtoh(self._host_inputs[name], array.address)
        self._in, self._out = gpu.stream(), gpu.stream()
        self._begin, self._start, self._end = Event(), Event(), Event()
        self._copied = Event()
        self._done = Event(blocking=self.copies)
        self._bound.enqueue()
        lane.stream.synchronize()
        graph: Callable[[], None] = self._bound.enqueue
        self._launch = graph if self.copies else Graph(lane.stream, self._bound.enqueue).launch
        self.in_flight = False

    def start(self) -> float:
        """Enqueue an iteration; returns the milliseconds that the launch took on the host."""
        stream = self._lane.stream
        if self.copies:
            self._begin.record(self._in)
            for name, array in self._inputs.items():
                driver.memcpy_htod_async(array.address, self._host_inputs[name], self._in)
            self._copied.record(self._in)
            self._copied.hold(stream)
        self._start.record(stream)
        before = time.perf_counter()
        self._launch()
        enqueue = (time.perf_counter() - before) * 1e3
        self._end.record(stream)
        if self.copies:
            self._end.hold(self._out)
            for name, array in self._bound.outputs.items():
                driver.memcpy_dtoh_async(self._host_outputs[name], array.address, self._out)
            self._done.record(self._out)
        self.in_flight = True
        return enqueue

    def finish(self) -> tuple[float, float]:
        """Wait for the iteration; returns compute time and latency [ms]."""
        (self._done if self.copies else self._end).synchronize()
        self.in_flight = False
        compute = self._start.milliseconds_until(self._end)
        return compute, self._begin.milliseconds_until(self._done) if self.copies else compute


def measure(
    session: TensorRTSession, component: str, shapes: Shapes, like: str = "trtexec-11", min_seconds: float = 3.0
) -> EngineTimes:
    """Measure one engine alone, on random numbers.

    Args:
        session: the engines.
        component: which.
        shapes: input shapes.
        like: one of `LIKE`.
        min_seconds: for at least so long.
    """
    lane = session.open_lane()
    slots = [_Slot(session, lane, component, shapes, like) for _ in range(2)]
    compute: list[float] = []
    latency: list[float] = []
    enqueue: list[float] = []
    begin = time.perf_counter()
    measured = begin + _WARM_UP_SECONDS
    number = 0
    while len(compute) < _MIN_ITERATIONS or time.perf_counter() < measured + min_seconds:
        slot = slots[number % 2]
        number += 1
        if slot.in_flight:
            times = slot.finish()
            if time.perf_counter() >= measured:
                compute.append(times[0])
                latency.append(times[1])
        launch = slot.start()
        if time.perf_counter() >= measured:
            enqueue.append(launch)
    ended = time.perf_counter()
    session.gpu.synchronize()
    return EngineTimes(compute, latency, enqueue, len(compute) / (ended - measured))


def layer_times(session: TensorRTSession, component: str, shapes: Shapes) -> dict[str, float]:
    """Mean milliseconds of each layer; the events between layers slow the engine down, so they add up to more."""
    sums: dict[str, float] = defaultdict(float)

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            sums[layer_name] += ms

    lane = session.open_lane()
    bound = lane.bind(component, random_inputs(session, component, shapes), {})
    bound.enqueue()
    lane.stream.synchronize()
    profiler = Profiler()
    bound.context.profiler = profiler
    for _ in range(_PROFILED_RUNS):
        bound.enqueue()
        lane.stream.synchronize()
    return {name: total / _PROFILED_RUNS for name, total in sums.items()}


def random_inputs(session: TensorRTSession, component: str, shapes: Shapes) -> dict[str, DeviceArray]:
    """Inputs of normally distributed numbers on the device: zeros would make some kernels faster than data does."""
    generator = np.random.default_rng(0)
    inputs = {}
    for name, shape in shapes.items():
        dtype = session.dtype(component, name)
        inputs[name] = session.gpu.upload(generator.standard_normal(shape, np.float32).astype(dtype))
    return inputs
