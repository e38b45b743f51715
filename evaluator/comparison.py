"""Runs side by side, for a terminal."""

from __future__ import annotations

from typing import Any

from evaluator.bootstrap import CONFIDENCE
from shared.latency import TOTAL
from shared.table import MISSING, Table, number


def side_by_side(evaluations: dict[str, dict[str, Any]]) -> Table:
    """Headline numbers with their intervals, and latency, one column per run."""
    names = list(dict.fromkeys(name for evaluation in evaluations.values() for name in evaluation["headline"]))
    rows = [[name, *(_with_interval(name, evaluation) for evaluation in evaluations.values())] for name in names]
    totals = [evaluation["latency"][TOTAL] for evaluation in evaluations.values()]
    for name in ("mean", "median", "p99"):
        rows.append([f"latency {name} [ms]", *(number(total.get(name), 1) for total in totals)])
    return Table(f"Runs side by side ({CONFIDENCE:.0%} intervals)", ["", *evaluations], rows)


def _with_interval(name: str, evaluation: dict[str, Any]) -> str:
    value, interval = evaluation["headline"].get(name), evaluation["intervals"].get(name)
    text = number(value, 4)
    return text if interval is None else f"{text} [{interval['low']:.3f}, {interval['high']:.3f}]"


def difference_table(evaluations: dict[str, dict[str, Any]]) -> Table | None:
    """Differences from the baseline, one row per run and number; None with one run or no metrics."""
    rows = []
    for name, evaluation in evaluations.items():
        if evaluation["baseline"] is None:
            continue
        before = evaluations[evaluation["baseline"]]["headline"]
        for key, value in evaluation["headline"].items():
            change = None if value is None or before.get(key) is None else value - before[key]
            interval = evaluation["differences"].get(key) or {"low": None, "high": None}
            numbers = [MISSING if value is None else f"{value:+.1e}" for value in (change, *interval.values())]
            rows.append([f"{name} - {evaluation['baseline']}", key, *numbers])
    columns = ["runs", "metric", "difference", "low", "high"]
    return Table("Differences from the baseline, same frames", columns, rows) if rows else None
