"""Latency statistics of a run, from the milliseconds that it recorded per sample and stage."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shared.errors import InputError
from shared.table import Table, number

#: Name of the stage that covers all others.
TOTAL = "total"
PERCENTILES = (50, 90, 95, 99)

Statistics = dict[str, float]


def latency_statistics(latencies: Sequence[dict[str, float]]) -> dict[str, Statistics]:
    """Statistics per stage.

    Args:
        latencies: per sample, milliseconds by stage; ``total`` is the whole request.

    Returns:
        Per stage, ``total`` first: ``samples``, ``mean``, ``std``, ``min``, ``max``, ``p50``, ``p90``, ``p95``,
        ``p99`` in milliseconds; for ``total`` also ``throughput`` in requests per second, one after the other.

    Raises:
        InputError: no samples, or a time that is negative or not a number.
    """
    if not latencies:
        raise InputError("the run has no latencies", hint="run it on one sample at least")
    stages = [TOTAL, *dict.fromkeys(stage for sample in latencies for stage in sample if stage != TOTAL)]
    statistics = {}
    for stage in stages:
        values = np.array([sample[stage] for sample in latencies if stage in sample], np.float64)
        if not len(values) or not np.isfinite(values).all() or (values < 0).any():
            raise InputError(f"latency '{stage}' is missing, negative or not a number", hint="run again")
        statistics[stage] = _describe(values)
    mean = statistics[TOTAL]["mean"]
    if mean > 0:
        statistics[TOTAL]["throughput"] = 1000.0 / mean
    return statistics


def _describe(values: np.ndarray) -> Statistics:
    return {
        "samples": len(values),
        "mean": float(values.mean()),
        "std": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        "min": float(values.min()),
        "max": float(values.max()),
        **{f"p{percent}": float(np.percentile(values, percent)) for percent in PERCENTILES},
    }


def latency_table(statistics: dict[str, Statistics], run: str) -> Table:
    """The statistics for a terminal."""
    columns = ["mean", "std", "min", *(f"p{percent}" for percent in PERCENTILES), "max"]
    rows = [[stage, *(number(values[column], 2) for column in columns)] for stage, values in statistics.items()]
    total = statistics[TOTAL]
    rate = f", {total['throughput']:.1f} requests/s" if "throughput" in total else ""
    return Table(f"Latency of {run} [ms], {total['samples']} requests{rate}", ["stage", *columns], rows)
