"""What bounds a run: where the time of the thread that drives the model goes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from runtime.pace import COMMIT, INFERENCE, READ, UPLOAD, Pace, sentence
from runtime.reading import Input


class Clock:
    """Time that passes when a test says so."""

    now = 0.0


def _input(seconds: float) -> Input:
    return Input(0, "a", None, {}, 1.0, seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("runtime.pace.time", SimpleNamespace(perf_counter=lambda: clock.now, process_time=lambda: 0.3))
    return clock


def test_time_is_counted_where_it_is_spent(clock: Clock) -> None:
    pace = Pace(_began=0.0)

    pace.begin()
    for _ in range(3):
        clock.now += 0.03
        pace.spent_on(READ)
        clock.now += 0.01
        pace.spent_on(INFERENCE)
        pace.add(_input(0.25))
    result = pace.result()
    assert result["samples"] == 3
    assert result["parts"] == pytest.approx({READ: 0.75, UPLOAD: 0.0, INFERENCE: 0.25, COMMIT: 0.0})
    assert result["per_second"] == pytest.approx(3 / 0.12)
    assert result["processor_seconds"] == pytest.approx((0.3 + 3 * 0.25) / 3)
    assert "samples a second, bound by read (read " in sentence(result)
