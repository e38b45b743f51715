"""Statistics of latencies, computed the same way wherever a latency is shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.table import MISSING, number

TOTAL = "total"
"""The stage that stands for the whole request."""

ENQUEUE = "enqueue"
"""What putting a request on a GPU's stream takes on the host: in parallel to the stages, and none of them."""

WAITED = "waited"
"""How long the threads of the process waited for a processor during a request: no stage, see `disturbed`."""

NOT_STAGES = (TOTAL, ENQUEUE, WAITED)
"""Recorded with the stages of a request, and not part of their sum."""

DISTURBED = "disturbed"
"""Among the statistics of the total: how many requests were `disturbed`."""

CARD, PROCESSOR = "card", "processor"
"""Among the conditions of a measurement (`runtime.conditions`): what it ran on."""

CLOCKS = ("sm_clock_mhz", "memory_clock_mhz")
"""Among the conditions on a card."""

SETTINGS = ("threads", "sample", "memory", "batch")
"""Among the conditions of a measurement: what was asked for."""

YARDSTICK = "yardstick_ms"
"""Among the conditions on a processor: the time of a fixed piece of work."""

RENAMED_STAGES = {"voxelise": "voxelize"}
"""Stages, and steps of traces, by the names that version 0.1 recorded them under."""

_PERCENTILES = (50, 90, 95, 99)
# A percentile rests on the samples above it; it is given only if there are at least ten of them.
_SAMPLES_ABOVE = 10
_SAMPLES_NEEDED = {f"p{percent}": _SAMPLES_ABOVE * 100 // (100 - percent) for percent in _PERCENTILES}
_RESAMPLES = 500
# Waiting of more than this part of a request shows in its latency; a thread that wakes up waits for less.
_DISTURBING = 0.1
# Of what a request takes, other programs only add to it: the fastest ones tell most about the model.
_FASTEST = 0.05
MIN_SAMPLES = 6
"""With at least this many samples, 95 % of the medians of a distribution lie within the samples: 1 - 2 / 2^6 = 0.97."""


def summarize(milliseconds: npt.ArrayLike) -> dict[str, float]:
    """Statistics of one stage.

    Args:
        milliseconds: one latency per request, at least one.

    Returns:
        ``samples``, ``mean``, ``std`` (of the sample, n - 1; 0 for one), ``min``, ``max``, ``median``, those of
        ``p50``, ``p90``, ``p95``, ``p99`` that have at least ten samples above them, and ``throughput`` (requests a
        second, one after the other; not of 0 ms).
    """
    values = np.asarray(milliseconds, np.float64)
    count = len(values)
    summary = {
        "samples": count,
        "mean": float(values.mean()),
        "std": float(values.std(ddof=1)) if count > 1 else 0.0,
        "min": float(values.min()),
        "max": float(values.max()),
        "median": float(np.median(values)),
    }
    for percent in _PERCENTILES:
        if count >= _SAMPLES_NEEDED[f"p{percent}"]:
            summary[f"p{percent}"] = float(np.percentile(values, percent))
    if summary["mean"] > 0:
        summary["throughput"] = 1000 / summary["mean"]
    return summary


def samples_needed(statistic: str) -> int:
    """How many requests a statistic of `summarize` needs to be given; 1 unless it is a percentile."""
    return _SAMPLES_NEEDED.get(statistic, 1)


def summarize_stages(stages: Mapping[str, npt.ArrayLike]) -> dict[str, dict[str, float]]:
    """Statistics by stage, in the order given; each stage has a latency [ms] per request, one at least.

    Where it was recorded how long requests `WAITED`, the total's say how many were `DISTURBED`.
    """
    statistics = {stage: summarize(milliseconds) for stage, milliseconds in stages.items()}
    found = disturbed(stages)
    if found is not None:
        statistics[TOTAL][DISTURBED] = int(np.count_nonzero(found))
    return statistics


def disturbed(stages: Mapping[str, npt.ArrayLike]) -> npt.NDArray[np.bool_] | None:
    """Which requests other programs slowed down: the process's threads waited for a processor for over 10 % of them.

    Args:
        stages: `TOTAL` and `WAITED`, milliseconds per request.

    Returns:
        (requests,); None where nobody recorded how long they waited (runs of earlier versions).
    """
    if WAITED not in stages or TOTAL not in stages:
        return None
    answer: npt.NDArray[np.bool_] = np.asarray(stages[WAITED]) > _DISTURBING * np.asarray(stages[TOTAL])
    return answer


def disturbance(total: Mapping[str, float]) -> str | None:
    """What to say of latencies that other programs disturbed, from the statistics of the total; None: nothing."""
    count = total.get(DISTURBED, 0)
    return f"{count:.0f} of {total['samples']:.0f} requests DISTURBED by other programs" if count else None


def milliseconds(total: Mapping[str, float], statistic: str, digits: int) -> str:
    """A statistic of the total for a table; marked where requests were disturbed."""
    text = number(total.get(statistic), digits)
    return f"{text} (disturbed)" if total.get(DISTURBED) and text != MISSING else text


def median_interval(milliseconds: npt.ArrayLike, *, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the median: what it would be in repetitions that differ by chance alone.

    Args:
        milliseconds: one latency per request, at least one.
        seed: of the resampling.

    Returns:
        Lower and upper end.
    """
    values = np.asarray(milliseconds, np.float64)
    generator = np.random.default_rng(seed)
    medians = [float(np.median(generator.choice(values, len(values)))) for _ in range(_RESAMPLES)]
    low, high = np.percentile(medians, (2.5, 97.5))
    return float(low), float(high)


def round_of(stages: Mapping[str, npt.ArrayLike], conditions: Mapping[str, str]) -> dict[str, Any]:
    """What is kept of the requests of one process, to be compared with those of others (`evaluator.latency_change`).

    Processes differ by more than the requests of one: each is one observation, however many requests it made.

    Args:
        stages: milliseconds by stage, at least one request; `WAITED` among them where it was recorded.
        conditions: see `runtime.conditions.conditions`.

    Returns:
        ``requests``, ``disturbed`` (None: not recorded), ``conditions``, and ``stages``: by name ``median`` and
        ``fastest`` (what one in twenty requests does not exceed) in milliseconds, of the requests that nobody
        `disturbed` where those are at least half.
    """
    found = disturbed(stages)
    count = len(np.asarray(stages[TOTAL]))
    kept = np.ones(count, np.bool_) if found is None or np.count_nonzero(found) > count / 2 else ~found
    quantiles = {}
    for name, times in stages.items():
        values = np.asarray(times, np.float64)
        # On a GPU stages are timed in requests of their own, of which it is not known who disturbed them.
        fastest, median = np.quantile(values[kept] if len(values) == count else values, (_FASTEST, 0.5)).tolist()
        quantiles[name] = {"fastest": fastest, "median": median}
    return {
        "requests": count,
        DISTURBED: None if found is None else int(np.count_nonzero(found)),
        "conditions": dict(conditions),
        "stages": {name: values for name, values in quantiles.items() if name != WAITED},
    }


def compare(ours: Mapping[str, float], theirs: Mapping[str, float]) -> str:
    """How one median compares with another, in words.

    Args:
        ours: ``median``, ``median_low``, ``median_high`` and ``samples``.
        theirs: likewise.

    Returns:
        ``1.52 times faster``, ``1.10 times slower``, ``no difference`` where the intervals overlap, or that there are
        too few samples to tell.
    """
    fewest = min(ours["samples"], theirs["samples"])
    if fewest < MIN_SAMPLES:
        return f"too few requests to tell ({fewest:.0f}, at least {MIN_SAMPLES} are needed)"
    if ours["median_low"] <= theirs["median_high"] and theirs["median_low"] <= ours["median_high"]:
        return "no difference"
    ratio = theirs["median"] / ours["median"]
    return f"{ratio:.2f} times faster" if ratio > 1 else f"{1 / ratio:.2f} times slower"
