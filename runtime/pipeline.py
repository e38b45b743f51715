"""Pipelines: pre-processing, components and post-processing of one kind of model, whatever the backend.

A folder ``runtime/models/<model>/`` with ``pipeline.py`` and its function ``build`` is the pipeline of the models whose
spec says ``model: <model>``. Another package adds one by an entry point of the group ``awml_deploy.pipelines``
(`shared.plugins`).

A pipeline is one list of `Step`s. `HostPipeline` makes everything of it: requests with the time of each stage, what
`runtime trace` keeps, what `runtime swap` goes on from::

    def build(spec: ModelSpec, session: Session) -> Pipeline:
        parameters = validated(MyParameters, spec)
        network = spec.components[0]
        steps = [
            Step("scale", lambda image: scaled(image, parameters.size), one_array(network.inputs[0].name)),
            component_step(network, session),
            Step("decide", lambda outputs: decided(outputs, parameters.threshold), predictions_of(spec)),
        ]
        return HostPipeline(Interface(read, one_array("image")), steps)

A pipeline whose steps are CUDA kernels is a `DevicePipeline`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Generic

import numpy as np
import numpy.typing as npt

from runtime.backends import Session
from runtime.cuda.staging import Staging
from runtime.parameters import ParametersT
from shared import cuda, plugins, tasks
from shared.errors import InferenceError, ManifestError, UsageError
from shared.latency import ENQUEUE, TOTAL
from shared.spec import ComponentSpec, ModelSpec
from shared.tasks import Predictions

if TYPE_CHECKING:
    from typing_extensions import Self

    from runtime.cuda.session import DeviceSession

ArraysByName = Mapping[str, npt.NDArray[Any]]
Counters = Mapping[str, int]


@dataclass(frozen=True)
class PipelineInput:
    """A model's input for one sample.

    Attributes:
        data: what `Pipeline.infer` takes.
        counters: what reading it left out, by name.
    """

    data: Any
    counters: dict[str, int]


@dataclass(frozen=True)
class Inference:
    """What one request gave.

    Attributes:
        predictions: those of the task.
        outputs: raw outputs of the last component, as the backend gave them.
        latency_ms: milliseconds by stage, in the order in which they ran, and ``total``.
        counters: what the input and the outputs were like, by name; for example voxels that did not fit.
    """

    predictions: Predictions
    outputs: ArraysByName
    latency_ms: dict[str, float]
    counters: dict[str, int]


@dataclass(frozen=True)
class Packing:
    """How the state between two steps is kept in a file.

    Attributes:
        pack: the state as arrays by name, all that later steps need.
        unpack: the state from such arrays.
    """

    pack: Callable[[Any], dict[str, npt.NDArray[Any]]]
    unpack: Callable[[ArraysByName], Any]


#: Arrays by name, as components give them.
BY_NAME = Packing(dict, dict)


def one_array(name: str) -> Packing:
    """A state that is one array, kept under a name."""
    return Packing(lambda array: {name: array}, lambda arrays: arrays[name])


def dataclass_of_arrays(kind: type[Any]) -> Packing:
    """A state that is a dataclass whose fields are arrays, kept under the names of the fields."""
    names = [field.name for field in fields(kind)]
    return Packing(
        lambda state: {name: getattr(state, name) for name in names},
        lambda arrays: kind(**{name: arrays[name] for name in names}),
    )


def predictions_of(spec: ModelSpec) -> Packing:
    """The predictions of a model's task."""
    task = tasks.find(spec.task)
    return Packing(task.arrays, task.from_arrays)


@dataclass(frozen=True)
class Step:
    """One step of a pipeline.

    Attributes:
        name: of the step and its stage in latencies; a component's is that of the model spec.
        run: the state after the step from the state before it; after the last step the state is the predictions. A
            state is valid until the same step runs again.
        packing: how the state after the step is kept.
        count: what the state after the step is like, by name, for the counters of a request. Not timed.
        outputs: the raw outputs in the state after a component.
    """

    name: str
    run: Callable[[Any], Any]
    packing: Packing
    count: Callable[[Any], dict[str, int]] | None = None
    outputs: Callable[[Any], ArraysByName] | None = None


def component_step(
    component: ComponentSpec, session: Session, count: Callable[[Any], dict[str, int]] | None = None
) -> Step:
    """A component of one input: from the array that it takes to its outputs by name."""
    name, (tensor,) = component.name, component.inputs
    return Step(name, lambda array: session.run(name, {tensor.name: array}), BY_NAME, count, outputs=dict)


def run_steps(steps: Sequence[Step], state: Any) -> Any:
    """The state after all of ``steps``, in order, from the state before them."""
    for step in steps:
        state = step.run(state)
    return state


def no_alerts(counters: Counters) -> list[str]:  # noqa: ARG001 (what a model without any has to say)
    """Nothing to tell."""
    return []


@dataclass(frozen=True)
class Interface:
    """What of a pipeline is the same wherever its steps run.

    Attributes:
        read: see `Pipeline.read`.
        packing: how what is read is kept.
        comparable: see `Pipeline.comparable`.
        alerts: see `Pipeline.alerts`.
    """

    read: Callable[[Any], PipelineInput]
    packing: Packing
    comparable: Callable[[ArraysByName], dict[str, npt.NDArray[Any]]] = dict
    alerts: Callable[[Counters], list[str]] = no_alerts


class Pipeline(ABC):
    """One model on one session. It owns buffers, and so serves one request at a time."""

    def __init__(self, interface: Interface) -> None:
        self.interface = interface

    def read(self, sample: Any) -> PipelineInput:
        """The model's input for a sample of a data set. Not part of a request.

        Raises:
            InputError: a file of the sample is missing or corrupt.
        """
        return self.interface.read(sample)

    def page_locked(self, memory: npt.NDArray[np.uint8]) -> AbstractContextManager[object]:  # noqa: ARG002 (a GPU's part)
        """Within the block, inputs that lie in ``memory`` are fetched as fast as the device can."""
        return nullcontext()

    @abstractmethod
    def infer(self, data: Any) -> Inference:
        """One request, from the input in host memory to predictions in host memory.

        Raises:
            InferenceError: the input does not fit the model, or the backend failed.
        """

    def comparable(self, outputs: ArraysByName) -> dict[str, npt.NDArray[Any]]:
        """Raw outputs in the conventions of the training framework, so that they compare with its own."""
        return self.interface.comparable(outputs)

    def alerts(self, counters: Counters) -> list[str]:
        """What a user must know: one line each, with the numbers.

        Args:
            counters: those of `PipelineInput` and `Inference`, summed over a run.
        """
        return self.interface.alerts(counters)


class HostPipeline(Pipeline):
    """A pipeline whose steps run in NumPy, one after the other.

    Attributes:
        steps: all of them; the first reads a sample and is not part of a request.
    """

    def __init__(self, interface: Interface, steps: Sequence[Step]) -> None:
        super().__init__(interface)
        self.steps = [Step("read", lambda sample: interface.read(sample).data, interface.packing), *steps]

    def infer(self, data: Any) -> Inference:
        """See `Pipeline`."""
        latency: dict[str, float] = {}
        state = data
        states = []
        started = before = time.perf_counter_ns()
        for step in self.steps[1:]:
            state = step.run(state)
            now = time.perf_counter_ns()
            latency[step.name], before = (now - before) / 1e6, now
            states.append((step, state))
        latency[TOTAL] = (before - started) / 1e6
        counters: dict[str, int] = {}
        outputs: ArraysByName = {}
        for step, after in states:
            if step.count is not None:
                counters.update(step.count(after))
            if step.outputs is not None:
                outputs = step.outputs(after)
        return Inference(state, outputs, latency, counters)


@dataclass(frozen=True)
class _InFlight:
    """A request between `DevicePipeline.submit` and `DevicePipeline.collect`; times in nanoseconds."""

    request: Any
    stages: bool
    started: int
    enqueued: int


class DevicePipeline(Pipeline, Generic[ParametersT]):
    """A pipeline whose requests run on a GPU, so that several can be in flight, one a lane.

    An object is a lane: a stream and buffers of its own. Taking the time of every stage costs some microseconds a
    stage. A subclass enqueues requests and reads their answers.

    Args:
        interface: reading, comparing, alerts.
        spec: the model.
        parameters: its parameters.
        session: its components on a GPU.
    """

    def __init__(self, interface: Interface, spec: ModelSpec, parameters: ParametersT, session: DeviceSession) -> None:
        super().__init__(interface)
        self._spec, self._parameters, self._session = spec, parameters, session
        self._gpu = session.gpu
        self._lane = session.open_lane()
        self._stream = self._lane.stream
        self._staging = Staging(session.gpu)
        self._in_flight: _InFlight | None = None

    @property
    def several_lanes(self) -> bool:
        """Whether `another` gives a second lane."""
        return self._session.several_lanes

    def page_locked(self, memory: npt.NDArray[np.uint8]) -> AbstractContextManager[object]:
        """See `Pipeline`: the GPU fetches it by itself."""
        return cuda.page_locked(memory)

    def infer(self, data: Any) -> Inference:
        """See `Pipeline`; with the time of every stage."""
        self.submit(data, stages=True)
        return self.collect()

    def submit(self, data: Any, *, stages: bool = False) -> None:
        """Enqueue a request without waiting for it; `collect` has to follow before the next one.

        Args:
            data: as for `Pipeline.infer`.
            stages: take the time of every stage.

        Raises:
            InferenceError: the input does not fit the model, the backend refuses, or a request is in flight.
        """
        if self._in_flight is not None:
            raise InferenceError("this lane has a request in flight")
        started = time.perf_counter_ns()
        self._staging.begin()
        try:
            request = self.enqueue(data, stages=stages)
        except BaseException:
            # What is on its way already comes from memory that may go now.
            with suppress(Exception):
                self._gpu.synchronize()
            raise
        self._in_flight = _InFlight(request, stages, started, time.perf_counter_ns())

    def collect(self) -> Inference:
        """Wait for the request in flight.

        Returns:
            Its answer; the latency has ``enqueue`` and ``total`` in any case.

        Raises:
            InferenceError: there is none.
        """
        waiting, self._in_flight = self._in_flight, None
        if waiting is None:
            raise InferenceError("this lane has no request in flight")
        inference = self.answer(waiting.request, stages=waiting.stages)
        latency = {
            **inference.latency_ms,
            ENQUEUE: (waiting.enqueued - waiting.started) / 1e6,
            TOTAL: (time.perf_counter_ns() - waiting.started) / 1e6,
        }
        return Inference(inference.predictions, inference.outputs, latency, inference.counters)

    def settle(self) -> None:
        """Wait for the request in flight, if there is one, whose answer nobody wants any more."""
        if self._in_flight is not None:
            with suppress(Exception):
                self.collect()

    @abstractmethod
    def enqueue(self, data: Any, *, stages: bool) -> Any:
        """Put a request on the lane's stream, without waiting.

        Args:
            data: the input; its arrays are written again when the request has been answered.
            stages: take the time of every stage.

        Returns:
            What `answer` must know of it.
        """

    @abstractmethod
    def answer(self, request: Any, *, stages: bool) -> Inference:
        """Wait for the request, and read its answer; the latency is that of the stages, if they were timed."""

    def another(self) -> Self:
        """A second lane on the same session, with buffers of its own.

        Raises:
            InferenceError: the backend has one lane.
        """
        return type(self)(self.interface, self._spec, self._parameters, self._session)

    def batch(self, size: int) -> DevicePipeline[ParametersT]:
        """A lane whose requests have several inputs, which the network takes as one batch.

        A network's answers on a batch may differ from those on its parts by rounding.

        Args:
            size: how many. `submit` takes a sequence of them, and the predictions of an answer are a list.

        Raises:
            UsageError: this kind of model takes one, or the network does not take so many.
        """
        raise UsageError(
            f"a batch of {size}", hint=f"a request to models of kind '{self._spec.model}' is one input on this device"
        )

    @abstractmethod
    def input_shapes(self, data: Any, counters: Counters) -> dict[str, dict[str, tuple[int, ...]]]:
        """Input shapes of each component, by name, for a request with this input and these counters."""


Builder = Callable[[ModelSpec, Session], Pipeline]


def build_pipeline(spec: ModelSpec, session: Session) -> Pipeline:
    """The pipeline of a model.

    Raises:
        ManifestError: there is none for this kind of model, or the spec's parameters are not what it needs.
    """
    module = plugins.part(plugins.PIPELINES, spec.model, "pipeline")
    if module is None:
        raise ManifestError(
            f"there is no pipeline for models of kind '{spec.model}'",
            where="model spec",
            hint=plugins.known(plugins.PIPELINES),
        )
    build: Builder = module.build
    return build(spec, session)


def available_pipelines() -> list[str]:
    """Kinds of models that there is a pipeline for."""
    return plugins.available(plugins.PIPELINES)


def steps_of(pipeline: Pipeline, model: str) -> list[Step]:
    """The steps of a pipeline, to be run one by one.

    Raises:
        UsageError: it is none of steps.
    """
    if not isinstance(pipeline, HostPipeline):
        raise UsageError(
            f"models of kind '{model}' can't be run step by step",
            hint="their pipeline is not a list of steps (docs/extending.md)",
        )
    return pipeline.steps
