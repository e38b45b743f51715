"""Latency of one request by stage, returned by value."""

from __future__ import annotations

import time


class StageClock:
    """Wall time from lap to lap. Made for one request and thrown away with it."""

    def __init__(self) -> None:
        self._started = self._last = time.perf_counter_ns()
        self._milliseconds: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """The time since the last lap was ``stage``; laps of one name add up."""
        now = time.perf_counter_ns()
        self._milliseconds[stage] = self._milliseconds.get(stage, 0.0) + (now - self._last) / 1e6
        self._last = now

    def stop(self) -> dict[str, float]:
        """Milliseconds by stage, and ``total``: from the start to the last lap."""
        return {**self._milliseconds, "total": (self._last - self._started) / 1e6}
