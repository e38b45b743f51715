"""When a latency may be measured: warm-up until a rolling median has settled."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

# Requests per window, windows that must agree, and how closely: as long as a median still drifts, by caches, clocks or
# a backend's own tuning, three windows in a row differ by more.
_WINDOW = 5
_WINDOWS = 3
_TOLERANCE = 0.03


@dataclass(frozen=True)
class WarmUp:
    """How the warm-up went.

    Attributes:
        requests: how many were made.
        stable: whether the median settled before the time was up.
        seconds: how long it took.
    """

    requests: int
    stable: bool
    seconds: float


def warm_up(request: Callable[[], float], max_seconds: float) -> WarmUp:
    """Make requests until the medians of the last windows agree.

    Args:
        request: makes one request and returns its latency, in any unit.
        max_seconds: give up after this time, but not before all windows are full.
    """
    started = time.perf_counter()
    latencies: list[float] = []
    while True:
        latencies.append(request())
        elapsed = time.perf_counter() - started
        if is_stable(latencies):
            return WarmUp(len(latencies), True, elapsed)
        if elapsed > max_seconds and len(latencies) >= _WINDOW * _WINDOWS:
            return WarmUp(len(latencies), False, elapsed)


def is_stable(latencies: list[float]) -> bool:
    """Whether the medians of the last windows lie within the tolerance of their mean."""
    if len(latencies) < _WINDOW * _WINDOWS:
        return False
    recent = latencies[-_WINDOW * _WINDOWS :]
    medians = [statistics.median(recent[first : first + _WINDOW]) for first in range(0, len(recent), _WINDOW)]
    return max(medians) - min(medians) <= _TOLERANCE * statistics.mean(medians)
