"""How long a command takes of a processor, whatever else its machine does."""

from __future__ import annotations

import math
import resource
import subprocess
from collections.abc import Callable


def fewest_seconds(run: Callable[[], subprocess.CompletedProcess[str]], enough: float) -> float:
    """Of up to five runs of a command, the last of which is the first that takes less than ``enough``."""
    fewest = math.inf
    for _ in range(5):
        before = _of_children()
        run()
        fewest = min(fewest, _of_children() - before)
        if fewest < enough:
            break
    return fewest


def _of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
