"""Confidence intervals by resampling frames, for values and for differences between two runs.

Frames are drawn with replacement, as many as there are, and the metric is computed of those (B. Efron, "Bootstrap
methods: another look at the jackknife", 1979). All runs see the same draws, so that the interval of a difference is
that of paired frames: what is hard in a frame is hard for both and drops out.

Frames of one drive resemble one another. Drawing frames then gives intervals that are too narrow; drawing whole scenes
does not, but needs a good number of scenes. Not ``scipy.stats.bootstrap``: it would match the boxes of every resampled
set again, where counting each frame's matches so many times is enough, and would put SciPy into the evaluator's image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from shared.progress import track

#: Share of the replicates inside an interval.
CONFIDENCE = 0.95
#: Ten replicates lie beyond each bound, as for a latency's percentiles.
REPLICATES = 400
#: With fewer frames (or scenes) there is nothing to draw from, and no interval is given.
FEWEST_UNITS = 10

Copies = npt.NDArray[np.int64]
Interval = dict[str, float]


def draw(units: Sequence[str], replicates: int = REPLICATES, seed: int = 0) -> npt.NDArray[np.int64]:
    """How often each frame counts in each replicate.

    Args:
        units: (F,) what is drawn, per frame: its own name, or that of its scene.
        replicates: how many.
        seed: the same seed gives the same draws.

    Returns:
        (B, F) int64; B is 0 with fewer than ``FEWEST_UNITS`` different units.
    """
    names, unit_of_frame = np.unique(np.asarray(units, dtype=str), return_inverse=True)
    count = len(names)
    if count < FEWEST_UNITS:
        return np.zeros((0, len(units)), np.int64)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), replicates)
    return np.asarray(drawn[:, unit_of_frame], np.int64)


def replicate(
    copies: npt.NDArray[np.int64], metric: Callable[[Copies], Mapping[str, float | None]], description: str
) -> dict[str, npt.NDArray[np.float64]]:
    """The metric of every replicate.

    Args:
        copies: (B, F) from `draw`.
        metric: headline numbers of the set in which each frame counts so many times (F,).
        description: for the progress bar.

    Returns:
        Per number (B,), NaN where it could not be computed.
    """
    rows = [metric(row) for row in track(copies, description, len(copies))]
    names = list(rows[0]) if rows else []
    return {name: np.array([_number(row[name]) for row in rows]) for name in names}


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def interval(replicates: npt.NDArray[np.float64]) -> Interval | None:
    """Bounds of the middle ``CONFIDENCE`` of the replicates (B,); None if too many could not be computed."""
    known = replicates[~np.isnan(replicates)]
    if len(known) < len(replicates) / 2 or not len(known):
        return None
    beyond = (1 - CONFIDENCE) / 2
    return {"low": float(np.quantile(known, beyond)), "high": float(np.quantile(known, 1 - beyond))}


def intervals(replicates: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, Interval | None]:
    """Interval per number."""
    return {name: interval(values) for name, values in replicates.items()}


def differences(
    run: Mapping[str, npt.NDArray[np.float64]], baseline: Mapping[str, npt.NDArray[np.float64]]
) -> dict[str, Interval | None]:
    """Interval of run minus baseline per number, paired replicate by replicate."""
    return {name: interval(values - baseline[name]) for name, values in run.items() if name in baseline}
