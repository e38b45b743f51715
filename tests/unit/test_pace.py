"""What bounds a run: where the time of the thread that drives the model goes."""

from __future__ import annotations

import time

import pytest

from runtime.pace import COMMIT, INFERENCE, READ, Pace, sentence
from runtime.reading import Input


def _input(seconds: float) -> Input:
    return Input(0, "a", None, {}, 1.0, seconds)


def test_time_is_counted_where_it_is_spent() -> None:
    pace = Pace()

    def slow():
        for _ in range(3):
            time.sleep(0.03)
            yield _input(0.25)

    for read in pace.waiting_for(slow(), READ):
        with pace.spent_on(INFERENCE):
            time.sleep(0.01)
        pace.add(read)
    result = pace.result()
    assert result["samples"] == 3
    assert result["parts"][READ] > result["parts"][INFERENCE] > result["parts"][COMMIT] == 0
    assert sum(result["parts"].values()) == pytest.approx(1)
    assert result["per_second"] < 3 / 0.12
    assert result["processor_seconds"] >= 0.25
    assert "samples a second, bound by read (read " in sentence(result)


def test_a_block_that_fails_is_counted_too() -> None:
    pace = Pace()
    with pytest.raises(ValueError, match="broken"), pace.spent_on(COMMIT):
        time.sleep(0.01)
        raise ValueError("broken")
    assert pace.seconds[COMMIT] >= 0.01
