"""The warm-up ends when the median has settled, and not before."""

from __future__ import annotations

import itertools

from runtime.warm_up import is_stable, warm_up


def test_ends_once_the_median_is_flat():
    drifting = [10.0 / (1 + step) + 1 for step in range(200)]
    latencies = itertools.chain(drifting, itertools.repeat(1.05))
    result = warm_up(lambda: next(latencies), max_seconds=60)
    assert result.stable
    assert 15 < result.requests < 200


def test_outliers_do_not_count():
    assert is_stable([1.0, 1.0, 90.0, 1.0, 1.0] * 3)


def test_a_step_is_not_stable():
    assert not is_stable([1.0] * 10 + [1.1] * 5)
    assert is_stable([1.0] * 10 + [1.1] * 15)


def test_gives_up_when_the_time_is_over():
    growing = itertools.count(1)
    result = warm_up(lambda: float(2 ** next(growing)), max_seconds=0)
    assert not result.stable
    assert result.requests == 15
