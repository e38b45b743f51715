"""Quality gates: conditions on metrics and latency under which a run fails.

A gate reads ``[RUN:] METRIC [drop|rise] [low|high] COMPARISON NUMBER[%]``::

    mAP < 0.6                 the value of any run
    onnx-cpu: mAP < 0.6       of this run
    mAP drop > 0.5%           baseline minus run; 0.5% is 0.005; not for latencies
    latency p99 rise > 10     run minus baseline, in ms
    mAP low < 0.55            lower bound of the value's interval
    mAP drop high > 1%        upper bound of the drop's interval: fails unless a greater drop is ruled out

The baseline is the PyTorch run where there is one, else the first run.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import UsageError
from shared.latency import TOTAL, samples_needed
from shared.table import Table, number

_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_GATE = re.compile(
    r"\s*(?:(?P<run>[^:]+):)?\s*(?P<metric>.+?)(?:\s+(?P<change>drop|rise))?(?:\s+(?P<bound>low|high))?"
    r"\s*(?P<comparison><=|>=|<|>)\s*(?P<number>[-+0-9.eE]+)\s*(?P<percent>%?)\s*"
)
_LATENCY = "latency "


@dataclass(frozen=True)
class Gate:
    """One condition under which a run fails.

    Attributes:
        text: as the user wrote it.
        run: the run it is about; None: every run.
        metric: name of a headline number, or ``latency`` and a statistic.
        change: ``drop`` or ``rise`` against the baseline; None: the value itself.
        bound: ``low`` or ``high`` bound of the interval; None: the value.
        comparison: ``<``, ``<=``, ``>`` or ``>=``.
        limit: the number.
    """

    text: str
    run: str | None
    metric: str
    change: str | None
    bound: str | None
    comparison: str
    limit: float


@dataclass(frozen=True)
class GateResult:
    """A gate applied to a run.

    Attributes:
        gate: the gate as the user wrote it.
        run: name of the run.
        value: what was compared with the limit; None where it can't be computed, which fails.
        passed: the verdict.
    """

    gate: str
    run: str
    value: float | None
    passed: bool


def parse_gate(text: str) -> Gate:
    """A gate from its text.

    Raises:
        UsageError: it is not a gate.
    """
    match = _GATE.fullmatch(text)
    hint = "write for example: mAP < 0.6, mAP drop > 0.5%, or latency p99 > 100"
    if match is None:
        raise UsageError(f"'{text}' is not a gate", where="--fail-if", hint=hint)
    try:
        limit = float(match["number"]) / (100 if match["percent"] else 1)
    except ValueError as error:
        raise UsageError(f"'{text}': {match['number']} is not a number", where="--fail-if", hint=hint) from error
    run, metric = match["run"].strip() if match["run"] else None, match["metric"].strip()
    if match["bound"] and metric.startswith(_LATENCY):
        raise UsageError("latency has no interval", where=text, hint="leave out low and high")
    if match["percent"] and metric.startswith(_LATENCY):
        raise UsageError("a limit of latency is in ms, not in percent", where=text, hint="write for example: > 10")
    return Gate(text, run, metric, match["change"], match["bound"], match["comparison"], limit)


def refuse_unanswerable(
    gates: Sequence[Gate], runs: Sequence[str], baseline: str, numbers: Sequence[str], samples: int
) -> None:
    """Refuse gates that could never be checked, before anything is evaluated.

    Args:
        gates: the gates.
        runs: names of the runs, the baseline among them.
        baseline: name of the run that others are compared with.
        numbers: names of the numbers that every run will have: headline numbers, and statistics of the latency.
        samples: how many samples every run has a latency of.

    Raises:
        UsageError: a gate names a number or run that does not exist, a change although there is no baseline, or a
            percentile that so few samples don't give.
    """
    for gate in gates:
        if gate.run is not None and gate.run not in runs:
            raise UsageError(f"no run is called '{gate.run}'", where=gate.text, hint=f"there are: {', '.join(runs)}")
        if gate.change is not None and not set(runs if gate.run is None else [gate.run]) - {baseline}:
            raise UsageError(
                "there is no baseline to compare with", where=gate.text, hint="a change needs at least two runs"
            )
        needed = samples_needed(gate.metric.removeprefix(_LATENCY)) if gate.metric.startswith(_LATENCY) else 1
        if samples < needed:
            raise UsageError(
                f"{gate.metric} needs {needed} samples, the runs have the latency of {samples}",
                where=gate.text,
                hint=f"runtime run --num-samples {needed} --in-flight 1, or a gate on one of: "
                f"{', '.join(name for name in numbers if name.startswith(_LATENCY))}",
            )
        if gate.metric not in numbers:
            by_lower = {name.lower(): name for name in numbers}
            close = difflib.get_close_matches(gate.metric.lower(), by_lower, n=1)
            guess = f"did you mean '{by_lower[close[0]]}'? " if close else ""
            hint = f"{guess}there are: {', '.join(numbers)}"
            raise UsageError(f"no metric '{gate.metric}'", where=gate.text, hint=hint)


def check_gates(gates: Sequence[Gate], evaluations: Mapping[str, Mapping[str, Any]]) -> list[GateResult]:
    """Apply gates to stored evaluations, by run. A value that is missing fails its gate."""
    results = []
    for gate in gates:
        for run in evaluations if gate.run is None else [gate.run]:
            if gate.change is None or evaluations[run]["baseline"] is not None:
                value = _value(gate, run, evaluations)
                failed = value is None or _COMPARISONS[gate.comparison](value, gate.limit)
                results.append(GateResult(gate.text, run, value, not failed))
    return results


def gate_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """Recorded `GateResult`s, for a terminal."""
    rows = [
        [result["gate"], result["run"], number(result["value"], 4), "passed" if result["passed"] else "FAILED"]
        for result in results
    ]
    return Table("Gates: a run fails if", ["condition", "run", "value", "verdict"], rows)


def latency_names(statistics: Mapping[str, float]) -> dict[str, float]:
    """Statistics of the whole request by their names in gates."""
    return {f"{_LATENCY}{name}": value for name, value in statistics.items()}


def _value(gate: Gate, run: str, evaluations: Mapping[str, Mapping[str, Any]]) -> float | None:
    evaluation = evaluations[run]
    value = _number(gate, evaluation)
    if gate.change is None:
        return value if gate.bound is None else _bound(evaluation["intervals"], gate.metric, gate.bound)
    # A drop is a rise with its sign turned, so the greatest drop is the least rise.
    sign = -1.0 if gate.change == "drop" else 1.0
    if gate.bound is None:
        before = _number(gate, evaluations[evaluation["baseline"]])
        return None if value is None or before is None else sign * (value - before)
    bound = gate.bound if gate.change == "rise" else {"low": "high", "high": "low"}[gate.bound]
    change = _bound(evaluation["differences"], gate.metric, bound)
    return None if change is None else sign * change


def _number(gate: Gate, evaluation: Mapping[str, Any]) -> float | None:
    numbers: dict[str, float | None] = {**evaluation["headline"], **latency_names(evaluation["latency"][TOTAL])}
    return numbers.get(gate.metric)


def _bound(intervals: Mapping[str, Any], metric: str, bound: str) -> float | None:
    interval = intervals.get(metric)
    return None if interval is None else float(interval[bound])
