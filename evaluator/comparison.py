"""Runs side by side, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluator.bootstrap import CONFIDENCE
from evaluator.metrics import Metric
from evaluator.stored import computed_with
from shared.latency import TOTAL, milliseconds
from shared.precision import shown
from shared.table import MISSING, Table, number


def titled(name: str, evaluation: Mapping[str, Any]) -> str:
    """``onnx-cpu (INT8)``: the run with its precision, where that was recorded."""
    precision = evaluation["run"].get("precision")
    return name if precision is None else f"{name} ({shown(precision)})"


def float_title(beside: Mapping[str, Any]) -> str:
    """``centerpoint:onnx-cpu (FP32)``: the workspace and run of a float model."""
    return f"{beside['name']} ({shown(beside['precision'])})"


def columns_of(evaluations: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """What stands side by side: every run under its title, right of it the float model's where it is known."""
    columns: dict[str, Mapping[str, Any]] = {}
    for name, evaluation in evaluations.items():
        columns[titled(name, evaluation)] = evaluation
        beside = evaluation.get("float")
        if beside is not None:
            columns[float_title(beside)] = beside
    return columns


def side_by_side(columns: Mapping[str, Mapping[str, Any]]) -> Table:
    """Headline numbers with their intervals, and latency, one column per run (`columns_of`)."""
    names = list(dict.fromkeys(name for evaluation in columns.values() for name in evaluation["headline"]))
    rows = [[name, *(_with_interval(name, evaluation) for evaluation in columns.values())] for name in names]
    totals = [evaluation["latency"][TOTAL] for evaluation in columns.values()]
    for name in ("mean", "median", "p99"):
        rows.append([f"latency {name} [ms]", *(milliseconds(total, name, 1) for total in totals)])
    settings = [computed_with(evaluation) for evaluation in columns.values()]
    if any(settings):
        rows.append(["computed with", *(text or MISSING for text in settings)])
    return Table(f"Runs side by side ({CONFIDENCE:.0%} intervals)", ["", *columns], rows)


def _with_interval(name: str, evaluation: Mapping[str, Any]) -> str:
    value, interval = evaluation["headline"].get(name), evaluation["intervals"].get(name)
    text = number(value, 4)
    return text if interval is None else f"{text} [{interval['low']:.3f}, {interval['high']:.3f}]"


def class_table(scores: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> Table | None:
    """A row for each class and number; None where no metric was computed.

    Args:
        scores: per column, the numbers by class (`Metric.per_class`).
    """
    rows = []
    for name in dict.fromkeys(name for score in scores.values() for name in score):
        numbers = dict.fromkeys(key for score in scores.values() for key in score.get(name, {}))
        rows += [
            [name, key, *(number(score.get(name, {}).get(key), 4) for score in scores.values())] for key in numbers
        ]
    return Table("By class", ["class", "", *scores], rows) if rows else None


def float_class_table(evaluations: Mapping[str, Mapping[str, Any]], metric: Metric) -> Table | None:
    """The numbers by class of every run and of the float model beside it; None without a float model."""
    scores = {}
    for name, evaluation in evaluations.items():
        beside = evaluation.get("float")
        if beside is not None and evaluation["metrics"] is not None:
            scores[titled(name, evaluation)] = metric.per_class(evaluation["metrics"])
            scores[float_title(beside)] = beside["classes"]
    return class_table(scores)


def difference_table(evaluations: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """Differences from the baseline and from the float model, one row per run and number; None without either."""
    rows = []
    for name, evaluation in evaluations.items():
        beside = evaluation.get("float")
        if evaluation["baseline"] is not None:
            before = evaluations[evaluation["baseline"]]["headline"]
            rows += _differences(f"{name} - {evaluation['baseline']}", evaluation, before, evaluation["differences"])
        if beside is not None:
            rows += _differences(f"{name} - {beside['name']}", evaluation, beside["headline"], beside["differences"])
    columns = ["runs", "metric", "difference", "low", "high"]
    return Table("Differences on the same frames", columns, rows) if rows else None


def _differences(
    title: str, evaluation: Mapping[str, Any], before: Mapping[str, float | None], intervals: Mapping[str, Any]
) -> list[list[str]]:
    rows = []
    for key, value in evaluation["headline"].items():
        earlier = before.get(key)
        change = None if value is None or earlier is None else value - earlier
        interval = intervals.get(key) or {"low": None, "high": None}
        numbers = [MISSING if each is None else f"{each:+.1e}" for each in (change, *interval.values())]
        rows.append([title, key, *numbers])
    return rows
