"""Why the latencies of a soak are not flat: what was recorded beside them tells drift from a GPU that was slowed down.

A request's time has a part that goes with the clock of the GPU's multiprocessors and a part that does not (copies,
calls of the driver). So medians t of parts of the soak at clocks f that fit t = a + b / f, with neither a nor b
negative, are explained by the clocks; and what throttled them says why. What is left is drift, unless other processes
were there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Medians that are within this of one another are flat.
FLAT = 1.05
# Reasons of NVML for lower clocks (`runtime.conditions`), by what they come to.
_CAUSES = (
    ("thermal", ("software thermal slowdown", "hardware thermal slowdown")),
    ("power cap", ("software power cap", "power brake", "hardware slowdown")),
)


@dataclass(frozen=True)
class Part:
    """A part of a soak, as long as the others.

    Attributes:
        median_ms: of its requests.
        clocks_mhz: of the multiprocessors, as they were read now and then; empty where nothing reads them.
        throttled_by: reasons for lower clocks that were read meanwhile.
        others: processes on the GPU besides this one, at most.
        waited: share of the requests' time in which this process had no processor.
    """

    median_ms: float
    clocks_mhz: Sequence[float] = ()
    throttled_by: frozenset[str] = frozenset()
    others: int = 0
    waited: float = 0.0

    @staticmethod
    def of(times_ms: Sequence[float], conditions: Sequence[dict[str, str]], waited: float = 0.0) -> Part:
        """From latencies and what `runtime.conditions.gpu_conditions` said meanwhile."""
        reasons = {reason for each in conditions for reason in each.get("throttled_by", "").split(" + ")}
        return Part(
            float(np.median(times_ms)),
            tuple(float(each["sm_clock_mhz"]) for each in conditions if "sm_clock_mhz" in each),
            frozenset(reasons - {"", "nothing", "idle"}),
            max((int(each.get("compute_processes", 1)) - 1 for each in conditions), default=0),
            waited,
        )

    def json(self) -> dict[str, Any]:
        """As figures are stored."""
        return {
            "median_ms": round(self.median_ms, 4),
            "clocks_mhz": list(self.clocks_mhz),
            "throttled_by": sorted(self.throttled_by),
            "others": self.others,
            "waited": round(self.waited, 3),
        }


@dataclass(frozen=True)
class Drift:
    """What a soak's medians did.

    Attributes:
        cause: ``flat``, ``power cap``, ``thermal``, ``clocks`` (of no known reason), ``another process``, ``unsteady``
            (no slower at the end than at the beginning) or ``drift``.
        spread: greatest median over the least.
        left: the same of what the clocks don't explain.
    """

    cause: str
    spread: float
    left: float

    def json(self) -> dict[str, Any]:
        """As figures are stored."""
        return {"cause": self.cause, "spread": round(self.spread, 4), "left": round(self.left, 4)}


def drift(parts: Sequence[Part]) -> Drift:
    """The cause of what the medians of a soak's parts did."""
    medians = np.array([part.median_ms for part in parts])
    spread = float(medians.max() / medians.min())
    if spread <= FLAT:
        return Drift("flat", spread, spread)
    left = spread
    if all(part.clocks_mhz for part in parts):
        explained = _at_clocks(medians, np.array([np.mean(part.clocks_mhz) for part in parts]))
        unexplained = medians / explained
        left = float(unexplained.max() / unexplained.min())
    if left <= FLAT:
        reasons = frozenset[str]().union(*(part.throttled_by for part in parts))
        return Drift(next((cause for cause, names in _CAUSES if reasons & set(names)), "clocks"), spread, left)
    # Others count where it was slow: they must have been there then, and more than when it was fast.
    slow = medians > np.median(medians)
    for measure, least in (([part.others for part in parts], 1.0), ([part.waited for part in parts], 0.1)):
        values = np.array(measure, np.float64)
        if slow.any() and values[slow].mean() >= least and values[slow].mean() > values[~slow].mean():
            return Drift("another process", spread, left)
    third = max(len(medians) // 3, 1)
    lasting = float(np.mean(medians[-third:])) > FLAT * float(np.mean(medians[:third]))
    return Drift("drift" if lasting else "unsteady", spread, left)


def _at_clocks(medians: np.ndarray, clocks: np.ndarray) -> np.ndarray:
    """The medians that the clocks explain: the nearest a + b / f with neither a nor b negative."""
    inverse = 1.0 / clocks
    centered = inverse - inverse.mean()
    slope = float(centered @ medians / (centered @ centered)) if centered.any() else 0.0
    slope = min(max(slope, 0.0), float(medians.mean() / inverse.mean()))
    return np.asarray(medians.mean() + slope * centered)
