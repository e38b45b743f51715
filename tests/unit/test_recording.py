"""Who commits answers, and when: here, or in a thread while the device works."""

from __future__ import annotations

import threading
import time

import pytest

from runtime.answers import TIMED_EVERY
from runtime.pace import Pace
from runtime.recording import committed
from shared.errors import EnvironmentLacks, InputError
from tests.support.lanes import loaded

COUNT = 2 * TIMED_EVERY + 5


class Kept:
    """Stands for the writer of a run, on a disk that is slow, or full from some sample on."""

    def __init__(self, *, seconds: float = 0.0, full_from: int = COUNT) -> None:
        self.samples: list[tuple[int, float]] = []
        self.threads: set[str] = set()
        self._seconds, self._full_from = seconds, full_from

    def commit(self, index, predictions, latency_ms, counters, raw):
        time.sleep(self._seconds)
        if index >= self._full_from:
            raise EnvironmentLacks("the disk is full")
        self.threads.add(threading.current_thread().name)
        self.samples.append((index, predictions.logits.item()))


def keep_all(model, kept: Kept) -> None:
    with committed(model, kept, range(COUNT), frozenset(), Pace()) as answers:
        for _ in answers:
            pass


@pytest.mark.parametrize(("lanes", "thread"), [(1, "MainThread"), (2, "commit"), (3, "commit")])
def test_answers_are_committed_in_order_in_a_thread_where_several_are_in_flight(lanes, thread):
    kept = Kept(seconds=0.001)
    keep_all(loaded(COUNT, lanes)[0], kept)
    assert kept.samples == [(index, 2.0 * index) for index in range(COUNT)]
    assert kept.threads == {thread}
    assert "commit" not in {each.name for each in threading.enumerate()}


def test_nothing_is_committed_while_a_sample_has_the_device_to_itself():
    model, device = loaded(COUNT, 2)
    kept = Kept(seconds=0.002)
    seen = {}
    submit = model.pipeline.submit

    def watched(data, *, stages=False):
        if stages:
            before = len(kept.samples)
            time.sleep(0.01)
            seen[int(data[0])] = (before, len(kept.samples))
        submit(data, stages=stages)

    model.pipeline.submit = watched
    keep_all(model, kept)
    assert device.timed == list(seen) == [0, TIMED_EVERY, 2 * TIMED_EVERY]
    assert all(before == after for before, after in seen.values())


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_full_disk_ends_the_run_and_leaves_what_came_before(lanes):
    model, _ = loaded(COUNT, lanes)
    kept = Kept(full_from=7)
    with pytest.raises(EnvironmentLacks, match="the disk is full"):
        keep_all(model, kept)
    assert [index for index, _ in kept.samples] == list(range(7))


def test_a_full_disk_at_the_last_sample_is_no_success():
    with pytest.raises(EnvironmentLacks, match="the disk is full"):
        keep_all(loaded(COUNT, 2)[0], Kept(full_from=COUNT - 1))


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("ends", [InputError, KeyboardInterrupt])
def test_what_was_answered_is_committed_before_the_run_ends(lanes, ends):
    model, _ = loaded(COUNT, lanes, broken=50 if ends is InputError else -1)
    kept = Kept(seconds=0.001)
    with pytest.raises(ends), committed(model, kept, range(COUNT), frozenset(), Pace()) as answers:
        for answer in answers:
            if ends is KeyboardInterrupt and answer.index == 49:
                raise KeyboardInterrupt
    assert [index for index, _ in kept.samples] == list(range(50))


def test_the_driving_thread_waits_for_a_slow_disk_and_says_so():
    pace = Pace()
    model, _ = loaded(COUNT, 2)
    with committed(model, Kept(seconds=0.003), range(COUNT), frozenset(), pace) as answers:
        assert len(list(answers)) == COUNT
    assert max(pace.seconds, key=lambda part: pace.seconds[part]) == "commit"
