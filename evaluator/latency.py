"""Latency of a run, from the milliseconds that it recorded per sample and stage."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

import numpy as np

from shared.errors import InputError
from shared.latency import TOTAL, disturbance, median_interval, summarize_stages
from shared.runs import Run
from shared.table import Table, number

_COLUMNS = ("mean", "std", "min", "median", "p90", "p95", "p99", "max")


def run_latency(run: Run) -> dict[str, dict[str, float]]:
    """Statistics by stage, as `shared.latency.summarize` gives them; for the total, also the interval of the median.

    Raises:
        InputError: no samples, stages that differ from sample to sample, or a time that is negative or not a number.
    """
    latencies, where = run.latencies, str(run.folder)
    if not len(run):
        raise InputError("the run holds no samples", where=where, hint="run it again on one sample at least")
    whole = np.full(len(run), TOTAL in latencies.values)
    for stage, times in latencies.values.items():
        whole &= latencies.present[stage] & np.isfinite(times) & (times >= 0)
    whole |= ~run.timed()
    if not whole.all():
        index = int(np.argmin(whole))
        raise InputError(
            f"the latency of sample {index} is not whole: {latencies[index]}", where=where, hint="run it again"
        )
    if not run.timed().any():
        raise InputError("no sample has a latency", where=where, hint="run it again")
    timed = run.timed_latencies()
    statistics = summarize_stages(timed)
    low, high = median_interval(timed[TOTAL])
    statistics[TOTAL] |= {"median_low": low, "median_high": high}
    return statistics


def latency_csv(run: Run) -> Iterator[str]:
    """Every latency of a run, as lines of CSV: position, token of the sample, milliseconds by stage and in all."""
    stages = list(run.latencies.values)
    yield _csv_line(["index", "sample", *(f"{stage}_ms" for stage in stages)])
    for index in np.flatnonzero(run.timed()).tolist():
        latency = run.latencies[index]
        yield _csv_line([index, run.header.tokens[index], *(latency[stage] for stage in stages)])


def _csv_line(values: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def latency_table(statistics: dict[str, dict[str, float]], run: str) -> Table:
    """The statistics for a terminal; percentiles that too few samples support are left blank."""
    rows = [[stage, *(number(values.get(column), 2) for column in _COLUMNS)] for stage, values in statistics.items()]
    total = statistics[TOTAL]
    title = f"Latency of {run} [ms], {total['samples']:.0f} requests, {total['throughput']:.1f} requests/s"
    disturbed = disturbance(total)
    return Table(title if disturbed is None else f"{title}; {disturbed}", ["stage", *_COLUMNS], rows)
