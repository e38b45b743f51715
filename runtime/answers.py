"""A loaded model over samples of its data set: an answer a sample, in order, whoever keeps it.

`runtime run` commits them to a run; a worker of a cluster answers the samples of its range.

    with answering(model, samples=400) as loaded:
        for answer in loaded.answers(range(400), raw_samples={0, 1}):
            writer.commit(answer.index, answer.predictions, answer.latency_ms, answer.counters, answer.raw)
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from runtime.backends import Session
from runtime.devices import Device
from runtime.model import Model
from runtime.pace import COMMIT, INFERENCE, READ, UPLOAD, Pace
from runtime.pipeline import DevicePipeline, Inference, Pipeline
from runtime.readers import Readers
from runtime.reading import Input, Reading, ReadingHere
from runtime.waiting import with_waiting
from shared import tasks
from shared.arrays import Arrays
from shared.errors import DeployError, UsageError
from shared.logs import about
from shared.tasks import Predictions, Task

#: Requests in flight where the backend takes several: one computes while the next one's input is copied.
LANES = 2
#: With several in flight, one sample in so many has the device to itself, and a latency.
TIMED_EVERY = 40
# A second lane takes as long to load as the first; fewer samples are done sooner with one.
MANY_SAMPLES = 240
# Starting readers takes a second of a processor; fewer samples are read sooner here.
WORTH_READERS = 32
# Each reads some 150 to 180 frames of 67,000 points a second; so many are as fast as the driving thread.
MOST_READERS = 16


@dataclass(frozen=True)
class SampleAnswer:
    """What a model answered on one sample.

    Attributes:
        index: position of the sample in the data set.
        token: of the sample.
        predictions: those of the task.
        latency_ms: milliseconds by stage, and ``total``, of a request alone; empty where several were in flight.
        counters: what reading, the input and the outputs were like, by name.
        raw: raw outputs in the conventions of the training framework, where they were asked for.
        read_ms: milliseconds that reading took, which is no part of the request.
    """

    index: int
    token: str
    predictions: Predictions
    latency_ms: dict[str, float]
    counters: dict[str, int]
    raw: Arrays | None
    read_ms: float


class Loaded:
    """A model that is loaded, with what reads its samples. Use `answering`.

    Attributes:
        session: its components.
        pipeline: what runs on them.
        in_flight: how many requests are under way at a time.
    """

    def __init__(self, session: Session, pipelines: Sequence[Pipeline], reading: Reading, task: Task[Any]) -> None:
        self.session = session
        self.pipeline = pipelines[0]
        self.in_flight = len(pipelines)
        self._pipelines = pipelines
        self._reading = reading
        self._task = task

    @property
    def details(self) -> dict[str, Any]:
        """What is in force, for the header of a run."""
        flying = {"in_flight": self.in_flight} if self.in_flight > 1 else {}
        return {**self.session.settings, **flying}

    def answers(
        self, indices: Sequence[int], raw_samples: Collection[int] = (), pace: Pace | None = None
    ) -> Iterator[SampleAnswer]:
        """The answers on samples, in the order of ``indices``. May be called again when they are all taken.

        With several requests in flight a latency would not be that of a request alone. So one sample in `TIMED_EVERY`
        waits until the device is idle, and has a latency; the others have none.

        Args:
            indices: positions in the data set.
            raw_samples: those whose raw outputs are wanted too.
            pace: an account to add them to.

        Raises:
            InputError: a file of a sample is missing or corrupt; the answers on those before it are given first.
            InferenceError: the backend failed.
        """
        pace = pace or Pace()
        pace.begin()
        inputs = self._reading.inputs(self.pipeline, indices, held=self.in_flight)
        answers = self._one_by_one if self.in_flight == 1 else self._in_flight
        for answer in answers(inputs, raw_samples, pace):
            yield answer
            pace.spent_on(COMMIT)

    def warm_up(self, index: int) -> None:
        """Answer a sample for nobody: the first request pays for page faults and the backend's own set-up."""
        for read in self._reading.inputs(self.pipeline, [index], held=1):
            for pipeline in self._pipelines:
                pipeline.infer(read.data)

    def settle(self) -> None:
        """Wait until no request is under way: what the device fetches inputs from may go then."""
        for lane in self._pipelines:
            if isinstance(lane, DevicePipeline):
                lane.settle()

    def _one_by_one(self, inputs: Iterator[Input], raw_samples: Collection[int], pace: Pace) -> Iterator[SampleAnswer]:
        for read in inputs:
            pace.spent_on(READ)
            yield self._alone(read, raw_samples, pace)

    def _alone(self, read: Input, raw_samples: Collection[int], pace: Pace) -> SampleAnswer:
        with about(sample=read.token):
            inference = with_waiting(partial(self.pipeline.infer, read.data))
        answer = self._answer(read, self.pipeline, inference, inference.latency_ms, raw_samples)
        pace.spent_on(INFERENCE)
        pace.add(read)
        return answer

    def _in_flight(self, inputs: Iterator[Input], raw_samples: Collection[int], pace: Pace) -> Iterator[SampleAnswer]:
        idle = deque(lane for lane in self._pipelines if isinstance(lane, DevicePipeline))
        under_way: deque[tuple[DevicePipeline[Any], Input]] = deque()
        answered: deque[SampleAnswer] = deque()

        def collect() -> None:
            lane, read = under_way.popleft()
            idle.append(lane)
            with about(sample=read.token):
                answered.append(self._answer(read, lane, lane.collect(), {}, raw_samples))
            pace.spent_on(INFERENCE)
            pace.add(read)

        def all_answers() -> Iterator[SampleAnswer]:
            while under_way or answered:
                if not answered:
                    collect()
                yield answered.popleft()

        try:
            for read in inputs:
                pace.spent_on(READ)
                if read.index % TIMED_EVERY == 0:
                    while len(answered) > self.in_flight:
                        yield answered.popleft()
                    while under_way:
                        collect()
                    answered.append(self._alone(read, raw_samples, pace))
                    continue
                if not idle:
                    collect()
                with about(sample=read.token):
                    idle[0].submit(read.data)
                pace.spent_on(UPLOAD)
                under_way.append((idle.popleft(), read))
                # Only now, while the device works, is an answer kept by whoever asked for it.
                while answered:
                    yield answered.popleft()
        except DeployError:
            yield from all_answers()
            raise
        else:
            yield from all_answers()
        finally:
            self.settle()

    def _answer(
        self,
        read: Input,
        lane: Pipeline,
        inference: Inference,
        latency_ms: dict[str, float],
        raw_samples: Collection[int],
    ) -> SampleAnswer:
        """The answer of a request; the lane's next one may write where this one's predictions and outputs are."""
        arrays = {name: array.copy() for name, array in self._task.arrays(inference.predictions).items()}
        return SampleAnswer(
            read.index,
            read.token,
            self._task.from_arrays(arrays),
            latency_ms,
            {**read.counters, **inference.counters},
            lane.comparable(inference.outputs) if read.index in raw_samples else None,
            read.milliseconds,
        )


@contextlib.contextmanager
def answering(model: Model, samples: int, *, readers: int | None = None) -> Iterator[Loaded]:
    """Load a model to answer samples of its data set.

    Args:
        model: the model.
        samples: how many the run has. Where there are few, this process reads them, one request after the other.
        readers: processes that read ahead, 0 for none; None: as many as the machine suggests.

    Raises:
        ManifestError, EnvironmentLacks, ModelLoadError: see `Model.load`.
        UsageError: likewise; or several requests in flight were asked for, and the backend takes one.
    """
    if readers is None:
        readers = suggested_readers(model.device, samples)
    in_flight = model.in_flight or (LANES if samples >= MANY_SAMPLES else 1)
    # Before the model: the readers start while it is loaded.
    with opened_reading(model, readers, in_flight) as reading:
        session, pipeline = model.load()
        lanes = _lanes(pipeline, in_flight, asked=model.in_flight is not None)
        loaded = Loaded(session, lanes, reading, tasks.find(model.spec.task))
        try:
            yield loaded
        finally:
            loaded.settle()


def _lanes(pipeline: Pipeline, in_flight: int, *, asked: bool) -> list[Pipeline]:
    """The pipeline, and as many more as there are requests under way.

    Raises:
        UsageError: several were asked for, and it takes one at a time.
    """
    if in_flight == 1:
        return [pipeline]
    if isinstance(pipeline, DevicePipeline) and pipeline.several_lanes:
        return [pipeline, *(pipeline.another() for _ in range(in_flight - 1))]
    if asked:
        raise UsageError(f"--in-flight {in_flight}", hint="several requests under way need --backend tensorrt")
    return [pipeline]


def suggested_readers(device: Device, samples: int) -> int:
    """How many processes read ahead where the user does not say.

    On a CPU the model has the processors, and takes long enough for few readers; a GPU is as fast as several of them.
    """
    if samples < WORTH_READERS or sys.platform != "linux":
        return 0
    processors = len(os.sched_getaffinity(0))
    if device.is_cpu:
        return min(2, max(1, processors // 4))
    return min(MOST_READERS, max(1, processors - 2))


@contextlib.contextmanager
def opened_reading(model: Model, readers: int, in_flight: int) -> Iterator[Reading]:
    """Who reads the model's samples: so many processes, or this one."""
    if readers == 0:
        yield ReadingHere(model.dataset)
        return
    with contextlib.closing(Readers(model, readers, in_flight)) as reading:
        yield reading
