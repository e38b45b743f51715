"""Bare TensorRT engines, measured as trtexec measures them, so that a pipeline can be compared with them.

trtexec 8.6 to 10 copies inputs and outputs in every iteration, launches kernel by kernel and waits blocking; trtexec 11
leaves the copies out, launches a CUDA graph and spins. Both warm up for 200 ms, measure for at least ten iterations and
three seconds, keep two iterations in flight, and take the GPU's compute time between two events around a launch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from runtime.backends.tensorrt import TensorRTLane, TensorRTSession, trt
from runtime.cuda.gpu import DeviceArray
from shared import engines
from shared.engines import NOTHING_GIVEN, Given, Shapes

LIKE = ("trtexec-10", "trtexec-11")

_WARM_UP_SECONDS = 0.2
_MIN_ITERATIONS = 10
_PROFILED_RUNS = 20


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

    def __init__(
        self, session: TensorRTSession, lane: TensorRTLane, component: str, inputs: dict[str, DeviceArray], like: str
    ) -> None:
        self._gpu = gpu = session.gpu
        self.copies = like == "trtexec-10"
        self._lane = lane
        self._inputs = inputs
        self._bound = lane.bind(component, self._inputs, {})
        self._host_inputs = {name: gpu.pinned(array.shape, array.dtype) for name, array in self._inputs.items()}
        self._host_outputs = {name: gpu.pinned(array.shape, array.dtype) for name, array in self._bound.outputs.items()}
        for name, array in self._inputs.items():
            self._host_inputs[name][...] = array.get()
        self._in, self._out = gpu.stream(), gpu.stream()
        self._begin, self._copied, self._start, self._end = gpu.event(), gpu.event(), gpu.event(), gpu.event()
        self._done = gpu.event(blocking=self.copies)
        self._bound.enqueue()
        lane.stream.synchronize()
        enqueue: Callable[[], None] = self._bound.enqueue
        self._launch = enqueue if self.copies else gpu.graph(lane.stream, enqueue).launch
        self.in_flight = False

    def start(self) -> float:
        """Enqueue an iteration; returns the milliseconds that the launch took on the host."""
        stream = self._lane.stream
        if self.copies:
            self._begin.record(self._in)
            for name, array in self._inputs.items():
                self._gpu.to_device(self._host_inputs[name], array.address, self._in)
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
                self._gpu.to_host(array, self._host_outputs[name], self._out)
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
    session: TensorRTSession,
    component: str,
    shapes: Shapes,
    like: str = "trtexec-11",
    min_seconds: float = 3.0,
    *,
    given: Given = NOTHING_GIVEN,
) -> EngineTimes:
    """Measure one engine alone, on random numbers.

    Args:
        session: the engines.
        component: which.
        shapes: input shapes.
        like: one of `LIKE`.
        min_seconds: for at least so long.
        given: inputs by name that are not random: indices, of which random numbers would all name a few rows.
    """
    lane = session.open_lane()
    slots = [_Slot(session, lane, component, _inputs(session, component, shapes, given), like) for _ in range(2)]
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


def layer_times(
    session: TensorRTSession, component: str, shapes: Shapes, given: Given = NOTHING_GIVEN
) -> dict[str, float]:
    """Mean milliseconds of each layer of an engine, as `shared.engines.layer_times` measures them."""
    return engines.layer_times(trt, session.new_engine(component), shapes=shapes, runs=_PROFILED_RUNS, given=given)


def _inputs(session: TensorRTSession, component: str, shapes: Shapes, given: Given) -> dict[str, DeviceArray]:
    """Inputs on the device: those that are given, and of the others normally distributed numbers."""
    return {
        name: session.gpu.upload(
            engines.filled_up(given[name], shape).astype(session.dtype(component, name))
            if name in given
            else engines.random_values(shape, session.dtype(component, name))
        )
        for name, shape in shapes.items()
    }
