"""How long something takes, whatever else the machine does."""

from __future__ import annotations

import math
import resource
import subprocess
from collections.abc import Callable


def best_of(measure: Callable[[], float], enough: float) -> float:
    """The least of up to five measurements, the last of which is the first below ``enough``."""
    best = math.inf
    for _ in range(5):
        best = min(best, measure())
        if best < enough:
            break
    return best


def fewest_seconds(run: Callable[[], subprocess.CompletedProcess[str]], enough: float) -> float:
    """Processor time of a command, see `best_of`."""

    def measure() -> float:
        before = _of_children()
        run()
        return _of_children() - before

    return best_of(measure, enough)


def _of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
