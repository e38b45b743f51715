"""Whether a latency changed, by measurements of several processes on either side.

*The fastest requests.* Other programs on a machine only add to a latency, by waiting, which is recorded, and by what
they take of caches, memory and the clock, which is not. On a shared machine medians of processes differ by 6 %, the
times that one in twenty requests does not exceed by 1.5 % (benchmarks/README.md, `regressions.py`; J. Chen, J. Revels,
"Robust benchmarking in noisy environments", 2016). A change is one of the model where the fastest requests changed for
certain, and the medians went along.

*Processes.* Within one process thousands of requests give an interval of a hundredth of a percent; the next process, on
the same machine and with the same files, is off by more, by how its memory lies and where its threads run (T. Kalibera,
R. Jones, "Rigorous benchmarking in reasonable time", 2013). So each process is one observation, as a logarithm, and two
sides are compared by a t test of these, of the faster half of either. A few observations say little about their own
spread; it is moderated by what processes usually differ by (G. Smyth, "Linear models and empirical Bayes methods for
assessing differential expression", 2004). The variance of one is

    (PRIOR_WEIGHT * USUAL_SPREAD^2 + sum of squares around each side's mean) / (PRIOR_WEIGHT + observations - 2)

with as many degrees of freedom as its denominator, and that of a side's mean is what its number makes of it plus
DRIFT^2. One process on either side is compared so, too, and finds coarse changes only.

*The machine.* Latencies on a processor are told in units of the yardstick, a fixed piece of work that was timed beside
them: from hour to hour a virtual machine is faster or slower by several percent. Where the yardsticks themselves differ
by more than `SAME_SPEED`, nothing is compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np

from evaluator.measured import Round
from shared.latency import CARD, CLOCKS, MIN_SAMPLES, PROCESSOR, SETTINGS, TOTAL, YARDSTICK
from shared.lazy import lazy_import

special = lazy_import("scipy.special", install="make setup")

#: Standard deviation of what the fastest requests of processes take, relative; and of what their single stages do.
USUAL_SPREAD, USUAL_SPREAD_OF_STAGES = 0.015, 0.05
#: Standard deviation of what the machine itself is faster or slower by from one hour to the next, relative, beyond what
#: the yardstick tells: what no number of processes measured at once averages out.
DRIFT, DRIFT_OF_STAGES = 0.01, 0.03
#: Of several processes so many count, the faster ones: what others do to a whole process only adds, too.
FASTER_PROCESSES = 0.5
#: So many observations the usual spread counts for.
PRIOR_WEIGHT = 4
#: The medians went along where they changed by this part of the change of the fastest requests.
WENT_ALONG = 0.5
#: A processor runs at another speed where the yardstick differs by more than this, a GPU where a clock does.
SAME_SPEED, SAME_CLOCK = 0.01, 0.03
#: More disturbed requests than this share, and what is left of a process's is not that of the model alone.
MOST_DISTURBED = 0.25


@dataclass(frozen=True)
class LatencyChange:
    """How a latency differs.

    Attributes:
        ratio: of the fastest requests, now over before.
        low, high: interval of it.
        medians: ratio of the medians.
    """

    ratio: float
    low: float
    high: float
    medians: float

    @property
    def is_certain(self) -> bool:
        """Whether the interval leaves out that nothing changed, and the medians went along."""
        return not self.low <= 1 <= self.high and math.log(self.medians) / math.log(self.ratio) >= WENT_ALONG

    @property
    def is_of_medians_alone(self) -> bool:
        """Whether the medians lie outside the interval of the fastest requests, which shows no change."""
        return self.low <= 1 <= self.high and not self.low <= self.medians <= self.high


def latency_change(stage: str, before: Sequence[Round], now: Sequence[Round], false_alarms: float) -> LatencyChange:
    """Compare a stage, whose times are positive.

    Args:
        stage: its name.
        before, now: a process each.
        false_alarms: how often a change may be found where there is none.
    """
    fastest = [np.log(sorted(each.stages[stage].fastest for each in side)[: _kept(side)]) for side in (before, now)]
    usual, drift = (USUAL_SPREAD, DRIFT) if stage == TOTAL else (USUAL_SPREAD_OF_STAGES, DRIFT_OF_STAGES)
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in fastest)
    freedom = PRIOR_WEIGHT + sum(len(values) for values in fastest) - 2
    variance = (PRIOR_WEIGHT * usual**2 + squares) / freedom
    error = math.sqrt(sum(variance / len(values) + drift**2 for values in fastest))
    reach = float(special.stdtrit(freedom, 1 - false_alarms / 2)) * error
    slower = _yardstick(now) - _yardstick(before)
    change = float(fastest[1].mean() - fastest[0].mean()) - slower
    medians = [
        np.log(sorted(each.stages[stage].median for each in side)[: _kept(side)]).mean() for side in (before, now)
    ]
    ratio, low, high = (math.exp(change + shift) for shift in (0.0, -reach, reach))
    return LatencyChange(ratio, low, high, math.exp(float(medians[1] - medians[0]) - slower))


def _kept(side: Sequence[Round]) -> int:
    """How many processes count of a side: the faster half, one at least."""
    return math.ceil(FASTER_PROCESSES * len(side))


def _yardstick(side: Sequence[Round]) -> float:
    """Logarithm of the yardstick, of the faster half; 0 where there is none."""
    times = sorted(float(each.conditions[YARDSTICK]) for each in side if YARDSTICK in each.conditions)
    return float(np.log(times[: math.ceil(FASTER_PROCESSES * len(times))]).mean()) if times else 0.0


def quiet(rounds: Sequence[Round]) -> list[Round]:
    """The processes that other programs left alone."""
    return [each for each in rounds if (each.disturbed or 0) <= MOST_DISTURBED * each.requests]


def why_not_comparable(before: Sequence[Round], now: Sequence[Round]) -> str | None:
    """Why the latencies of two sides don't tell about the models; None: they do.

    They do on the same card at the same clocks, or on the same processor at the same speed, and undisturbed.
    """
    return _too_little("baseline", before) or _too_little("now", now) or _other_machine(before, now)


def _too_little(side: str, rounds: Sequence[Round]) -> str | None:
    fewest = min(each.requests for each in rounds)
    if fewest < MIN_SAMPLES:
        return f"{side}: {fewest} requests in a process, at least {MIN_SAMPLES} are needed"
    if len(quiet(rounds)) < len(rounds) / 2:
        disturbed = sum(each.disturbed or 0 for each in rounds)
        return f"{side}: other programs disturbed {disturbed} of {sum(each.requests for each in rounds)} requests"
    return None


def _other_machine(before: Sequence[Round], now: Sequence[Round]) -> str | None:
    places = [{each.conditions.get(CARD) or each.conditions.get(PROCESSOR) for each in side} for side in (before, now)]
    if None in places[0] | places[1]:
        return f"{'baseline' if None in places[0] else 'now'}: it was not recorded what was measured on; measure again"
    if len(places[0] | places[1]) > 1:
        return f"measured on {_named(places[1])}, the baseline on {_named(places[0])}"
    for setting in SETTINGS:
        chosen = [{each.conditions.get(setting, "") for each in side} for side in (before, now)]
        if chosen[0] != chosen[1]:
            return f"{setting} {_named(chosen[1])}, the baseline's {_named(chosen[0])}"
    on_processor = all(PROCESSOR in each.conditions for each in now)
    for speed in (YARDSTICK,) if on_processor else CLOCKS:
        if not all(speed in each.conditions for each in (*before, *now)):
            return f"{speed} was not recorded; measure again"
        earlier, present = (_yardstick(side) if on_processor else _clock(side, speed) for side in (before, now))
        if abs(present - earlier) > (SAME_SPEED if on_processor else SAME_CLOCK):
            return f"the machine runs at another speed: {speed} {math.exp(present):.4g}, was {math.exp(earlier):.4g}"
    return None


def _named(places: AbstractSet[str | None]) -> str:
    return " and ".join(sorted(str(place) for place in places))


def _clock(side: Sequence[Round], clock: str) -> float:
    """Logarithm of a clock's median."""
    return float(np.median(np.log([float(each.conditions[clock]) for each in side])))
