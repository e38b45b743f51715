"""A model of several lanes on a device that nobody has: it doubles numbers, and keeps account of what is under way."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from runtime.answers import Loaded
from runtime.pipeline import DevicePipeline, Inference, Interface, PipelineInput, one_array
from runtime.reading import ReadingHere
from shared import tasks
from shared.data.types import Dataset
from shared.errors import InferenceError, InputError
from shared.tasks.classification import ClassScores

TASK = tasks.find("classification")


@dataclass(frozen=True)
class Numbered:
    index: int
    token: str


class Busy:
    """What a GPU would see of the requests of all lanes.

    Attributes:
        most: requests that were under way at a time.
        timed: the requests that had it to themselves, in order.
    """

    def __init__(self) -> None:
        self.under_way: list[int] = []
        self.most = 0
        self.timed: list[int] = []

    def started(self, value: int) -> None:
        self.under_way.append(value)
        self.most = max(self.most, len(self.under_way))


class Lane(DevicePipeline[None]):
    """Doubles its input; a request ends when it is collected. Every answer of a lane lies in the same memory."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.logits = np.zeros((1, 1), np.float32)

    def enqueue(self, data, *, stages):
        if int(data[0]) == self._spec.refused:
            raise InferenceError("refused")
        self._session.device.started(int(data[0]))
        if stages:
            self._session.device.timed.append(int(data[0]))
        self.logits[:] = np.nan
        return data

    def answer(self, request, *, stages):
        device = self._session.device
        latency = {"alone": float(len(device.under_way) == 1)} if stages else {}
        device.under_way.remove(int(request[0]))
        self.logits[:] = 2 * request
        scores = ClassScores(self.logits, np.zeros(1, np.int64))
        return Inference(scores, {"raw": 2 * request}, latency, {"value": int(request[0])})

    def input_shapes(self, data, counters):
        return {}


def dataset(count: int) -> Dataset[Numbered]:
    return Dataset("numbers", (), count, lambda index: Numbered(index, f"s{index}"), list)


def loaded(count: int, lanes: int, *, broken: int = -1, refused: int = -1) -> tuple[Loaded, Busy]:
    """The model, and its device; reading one sample fails, or the device refuses one."""

    def read(sample: Numbered) -> PipelineInput:
        if sample.index == broken:
            raise InputError("is broken", where=sample.token)
        return PipelineInput(np.array([float(sample.index)]), {"read": sample.index})

    device = Busy()
    session = SimpleNamespace(
        gpu=None, device=device, settings={}, several_lanes=True, open_lane=lambda: SimpleNamespace(stream=None)
    )
    first = Lane(Interface(read, one_array("value")), SimpleNamespace(refused=refused), None, session)
    pipelines = [first, *(first.another() for _ in range(lanes - 1))]
    return Loaded(session, pipelines, ReadingHere(dataset(count)), TASK), device
