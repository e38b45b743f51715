"""Confidence intervals by resampling frames, for values and for differences between two runs.

Frames are drawn with replacement, as many as there are, and the metric is computed of those (B. Efron, "Bootstrap
methods: another look at the jackknife", 1979). All runs see the same draws, so that the interval of a difference is
that of paired frames: what is hard in a frame is hard for both and drops out.

Frames of one drive resemble one another. Drawing frames then gives intervals that are too narrow; drawing whole scenes
does not, but needs a good number of scenes. Not ``scipy.stats.bootstrap``: it would match the boxes of every resampled
set again, where counting each frame's matches so many times is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shared.progress import track

#: Share of the replicates inside an interval.
CONFIDENCE = 0.95
#: Ten replicates lie beyond each bound, as for a latency's percentiles.
REPLICATES = 400
#: With fewer frames (or scenes) there is nothing to draw from, and no interval is given.
FEWEST_UNITS = 10
#: Of more, a replicate draws so many, and its distance from the metric of all is scaled to theirs (P. Bickel, F. Götze,
#: W. van Zwet, "Resampling fewer than n observations", 1997): the cost of an interval ends to grow.
MOST_UNITS = 20_000

Copies = npt.NDArray[np.int64]
Interval = dict[str, float]


@dataclass(frozen=True)
class Draws:
    """How often each frame counts in each replicate: an iterable of (F,) int64, made as they are asked for.

    Attributes:
        unit_of_frame: (F,) number of the frame's unit.
        units: how many there are.
        replicates: how many draws.
        seed: the same seed gives the same draws.
    """

    unit_of_frame: npt.NDArray[np.int64]
    units: int
    replicates: int
    seed: int

    def __len__(self) -> int:
        return self.replicates

    def __iter__(self) -> Iterator[Copies]:
        random = np.random.default_rng(self.seed)
        for _ in range(self.replicates):
            if self.units <= MOST_UNITS:
                drawn = random.multinomial(self.units, np.full(self.units, 1 / self.units))
            else:
                drawn = np.bincount(random.integers(self.units, size=MOST_UNITS), minlength=self.units)
            yield np.asarray(drawn[self.unit_of_frame], np.int64)

    @property
    def narrowing(self) -> float:
        """How much narrower the spread of the whole set's metric is than that of a draw's."""
        return min(1.0, MOST_UNITS / self.units) ** 0.5 if self.units else 1.0


def draw(units: Sequence[str], replicates: int = REPLICATES, seed: int = 0) -> Draws:
    """Draw frames or scenes.

    Args:
        units: (F,) what is drawn, per frame: its own name, or that of its scene.
        replicates: how many times; not at all with fewer than ``FEWEST_UNITS`` different units.
        seed: the same seed gives the same draws.
    """
    names, unit_of_frame = np.unique(np.asarray(units, dtype=str), return_inverse=True)
    return Draws(unit_of_frame, len(names), replicates if len(names) >= FEWEST_UNITS else 0, seed)


def replicate(
    draws: Draws, metric: Callable[[Copies], Mapping[str, float | None]], description: str
) -> dict[str, npt.NDArray[np.float64]]:
    """The metric of every replicate.

    Args:
        draws: from `draw`.
        metric: headline numbers of the set in which each frame counts so many times (F,).
        description: for the progress bar.

    Returns:
        Per number (B,), NaN where it could not be computed.
    """
    rows = [metric(copies) for copies in track(draws, description, len(draws))]
    names = list(rows[0]) if rows else []
    found = {name: np.array([_number(row[name]) for row in rows]) for name in names}
    if rows and draws.narrowing < 1:
        whole = metric(np.ones(len(draws.unit_of_frame), np.int64))
        centers = {name: _number(whole[name]) for name in names}
        found = {name: centers[name] + (values - centers[name]) * draws.narrowing for name, values in found.items()}
    return found


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
