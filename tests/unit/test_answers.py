"""A loaded model over its samples: order, several requests in flight, which of them have a latency, what fails."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from runtime.answers import TIMED_EVERY, Loaded, answering, suggested_readers
from runtime.devices import Device
from runtime.pipeline import DevicePipeline, Inference, Interface, PipelineInput, one_array
from runtime.reading import ReadingHere
from shared import tasks
from shared.data.types import Dataset
from shared.errors import InferenceError, InputError
from shared.latency import TOTAL
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
    """

    def __init__(self) -> None:
        self.under_way: list[int] = []
        self.most = 0

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


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_answers_are_those_of_one_after_the_other(lanes):
    count = 2 * TIMED_EVERY + 3
    model, device = loaded(count, lanes)
    answers = list(model.answers(range(count), raw_samples={0, 1, 2, 7}))
    assert [answer.index for answer in answers] == list(range(count))
    assert [answer.token for answer in answers] == [f"s{index}" for index in range(count)]
    assert [answer.predictions.logits.item() for answer in answers] == [2.0 * index for index in range(count)]
    assert [answer.counters for answer in answers] == [{"read": index, "value": index} for index in range(count)]
    assert {a.index: a.raw["raw"].item() for a in answers if a.raw is not None} == {0: 0.0, 1: 2.0, 2: 4.0, 7: 14.0}
    assert device.most == lanes


def test_answers_come_soon_even_if_all_of_them_have_a_latency():
    model, _ = loaded(TIMED_EVERY * 20 + 1, 2)
    given = [0]

    def indices():
        for index in range(0, TIMED_EVERY * 20, TIMED_EVERY):
            assert index // TIMED_EVERY - given[0] <= 5
            yield index

    for answer in model.answers(indices()):
        given[0] = answer.index // TIMED_EVERY


def test_alone_every_request_has_a_latency():
    model, _ = loaded(5, 1)
    assert all(answer.latency_ms["alone"] and answer.latency_ms[TOTAL] > 0 for answer in model.answers(range(5)))
    assert "in_flight" not in model.details


def test_in_flight_those_have_a_latency_that_had_the_device_to_themselves():
    model, _ = loaded(100, 2)
    timed = {answer.index: answer.latency_ms for answer in model.answers(range(3, 100)) if answer.latency_ms}
    assert list(timed) == [index for index in range(3, 100) if index % TIMED_EVERY == 0]
    assert all(latency["alone"] and latency[TOTAL] > 0 for latency in timed.values())
    assert model.details == {"in_flight": 2}


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("fault", ["broken", "refused"])
def test_what_came_before_a_sample_that_fails_is_answered_first(lanes, fault):
    model, device = loaded(10, lanes, **{fault: 7})
    seen = []
    with pytest.raises(InputError if fault == "broken" else InferenceError):
        seen.extend(answer.index for answer in model.answers(range(10)))
    assert seen == list(range(7))
    assert not device.under_way


def test_nothing_is_under_way_when_memory_is_given_up(monkeypatch):
    """Also while an error holds the iterator of the answers."""
    model, device = loaded(10, 2)
    left = []

    @contextlib.contextmanager
    def reading(*_):
        try:
            yield model._reading
        finally:
            left.append(list(device.under_way))

    monkeypatch.setattr("runtime.answers.opened_reading", reading)
    monkeypatch.setattr("runtime.answers._lanes", lambda *_, asked: model._pipelines)
    spec = SimpleNamespace(task="classification")
    described = SimpleNamespace(load=lambda: (model.session, model.pipeline), in_flight=2, spec=spec)
    answers = None
    with pytest.raises(OSError, match="disk full"), answering(described, 10, readers=0) as opened:
        answers = opened.answers(range(10))
        next(answers)
        assert device.under_way
        raise OSError("disk full")
    assert left == [[]]
    answers.close()


def test_requests_are_collected_when_nobody_asks_for_their_answers():
    model, device = loaded(10, 3)
    answers = model.answers(range(10))
    assert next(answers).index == 0
    assert next(answers).index == 1
    assert device.under_way
    answers.close()
    assert not device.under_way
    assert [answer.index for answer in model.answers([4, 5])] == [4, 5]


@pytest.mark.skipif(sys.platform != "linux", reason="readers need Linux")
@pytest.mark.parametrize(
    ("device", "processors", "samples", "readers"),
    [
        ("cpu", 2, 400, 1),
        ("cpu", 64, 400, 2),
        ("cuda", 1, 400, 1),
        ("cuda", 8, 400, 6),
        ("cuda", 128, 400, 16),
        ("cuda", 128, 10, 0),
    ],
)
def test_readers_are_as_many_as_the_device_can_use(monkeypatch, device, processors, samples, readers):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(processors)))
    assert suggested_readers(Device(device), samples) == readers
