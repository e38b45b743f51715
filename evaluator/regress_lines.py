"""What is measured now beside a baseline, line by line, with a verdict on each.

*Metrics* as `evaluator.compare` has it: paired intervals on the same frames, of numbers that were computed with the
same settings.
*Latencies* by `evaluator.latency_change`, on the same machine at the same speed. *All others* are numbers without an
interval; they differ where they differ by more than `RESOLUTION`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from evaluator.compare import HIGHER, LOWER, OTHER_SETTINGS, SAME, UNKNOWN, Numbers, are_paired, metric_changes
from evaluator.latency_change import latency_change, quiet, why_not_comparable
from evaluator.measured import Measured, Quantity, Round, Scores
from evaluator.measuring import stages_of
from evaluator.stored import USUAL_SETTINGS
from shared.config.gates_section import Gates
from shared.latency import TOTAL

if TYPE_CHECKING:
    from evaluator.measured import Kind

Verdict = Literal["better", "worse", "no difference", "not comparable"]

BETTER: Verdict = "better"
WORSE: Verdict = "worse"
EQUAL: Verdict = "no difference"
NOT_COMPARABLE: Verdict = "not comparable"

#: How often a latency may be found to have changed where it has not, all lines of a comparison together.
FALSE_ALARMS = 0.01
#: A stage whose change is less than this part of the request's time is no difference to who waits for the request.
LEAST_SHARE = 0.01
#: What counts as a difference of the numbers without an interval: by so much of the earlier one, and by so much at all.
RESOLUTION: Mapping[str, tuple[float, float]] = {
    "size": (0.01, 0.0),
    "memory": (0.05, 0.0),
    # Whether timings of kernels were found in a cache or the disk was cold makes this much.
    "build time": (0.5, 5.0),
    "precision": (0.0, 0.5),
    "verification": (0.0, 0.5),
}


@dataclass(frozen=True)
class Line:
    """A number of either side, and what became of it.

    Attributes:
        kind: what it is, as `evaluator.measured.Kind`.
        subject: the run, engine or comparison.
        name: of the metric, stage or quantity.
        unit: of the numbers.
        before, now: None: not there. Of latencies the mean of the processes' medians.
        change: of latencies that of the fastest requests; relative for latencies, sizes, memory and build times,
            absolute for others; positive: it rose.
        low, high: interval of the change, where there is one.
        verdict: the verdict.
        why: what keeps it from being compared; for others what is to know of the interval.
        regression: whether it is worse by more than the gates allow.
    """

    kind: Kind
    subject: str
    name: str
    unit: str
    before: float | None
    now: float | None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: Verdict = NOT_COMPARABLE
    why: str = ""
    regression: bool = False


def compare(before: Measured, now: Measured, gates: Gates) -> list[Line]:
    """Every number of either side, in the order of `Measured`."""
    found = [*_metrics(before, now), *_latencies(before, now), *_quantities(before, now)]
    return [_gated(line, gates) for line in found]


def _metrics(before: Measured, now: Measured) -> Iterator[Line]:
    for subject in _either(before.scores, now.scores):
        old, new = before.scores.get(subject), now.scores.get(subject)
        names = _either(old.values if old else {}, new.values if new else {})
        changes = (
            {} if old is None or new is None or old.task != new.task else metric_changes(_numbers(old), _numbers(new))
        )
        for name in names:
            earlier, value = (None if side is None else side.values.get(name) for side in (old, new))
            line = Line("metric", subject, name, "", earlier, value)
            if old is None or new is None or name not in changes:
                yield _with(line, why=_missing(earlier, value))
                continue
            found = changes[name]
            bounds = found["interval"] or {"low": None, "high": None}
            why = "" if are_paired(_numbers(old), _numbers(new)) else "other frames: the intervals of both side by side"
            if found["verdict"] == UNKNOWN:
                why = "too few frames for an interval"
            if found["verdict"] == OTHER_SETTINGS:
                settings, earlier_ones = (each.settings().get(name, USUAL_SETTINGS) for each in (new, old))
                why = f"computed with other settings: {settings}, the baseline with {earlier_ones}"
            verdict = _direction(found["verdict"], name in new.lower_is_better)
            yield _with(line, change=found["difference"], **bounds, verdict=verdict, why=why)


def _numbers(scores: Scores) -> Numbers:
    intervals = {name: None if each is None else each.model_dump() for name, each in scores.intervals.items()}
    return Numbers(scores.frames, scores.values, intervals, scores.drawn(), scores.settings())


def _direction(verdict: str, lower_is_better: bool) -> Verdict:
    """What higher and lower mean."""
    if verdict == SAME:
        return EQUAL
    if verdict not in (HIGHER, LOWER):
        return NOT_COMPARABLE
    return BETTER if (verdict == LOWER) == lower_is_better else WORSE


def _latencies(before: Measured, now: Measured) -> Iterator[Line]:
    subjects = _either(before.latencies, now.latencies)
    both = [subject for subject in subjects if subject in before.latencies and subject in now.latencies]
    for subject in subjects:
        old, new = before.latencies.get(subject, []), now.latencies.get(subject, [])
        names = stages_of([*old, *new])
        why = _missing(old or None, new or None) if not (old and new) else why_not_comparable(old, new)
        # Half of the false alarms is the whole requests', half their stages'.
        alarms = {
            name: FALSE_ALARMS / 2 / len(both) / (1 if name == TOTAL else len(names) - 1) for name in names if both
        }
        for name in names:
            before_ms, now_ms = (_mean([each.stages[name].median for each in side]) for side in (old, new))
            line = Line("latency", subject, name, "ms", before_ms, now_ms)
            yield _with(line, why=why) if why else _latency(line, quiet(old), quiet(new), alarms[name])


def _latency(line: Line, old: Sequence[Round], new: Sequence[Round], alarms: float) -> Line:
    if min(each.stages[line.name].fastest for each in (*old, *new)) <= 0:
        return _with(line, why="takes no time that could be measured")
    found = latency_change(line.name, old, new, alarms)
    whole = min(each.stages[TOTAL].median for each in (*old, *new))
    assert line.before is not None and line.now is not None
    matters = line.name == TOTAL or abs(line.now - line.before) >= LEAST_SHARE * whole
    verdict: Verdict = EQUAL
    if found.is_certain and matters:
        verdict = WORSE if found.ratio > 1 else BETTER
    why = "" if min(len(old), len(new)) > 1 else "one process: runtime bench --processes 20 shows smaller changes"
    if matters and found.is_of_medians_alone:
        why = f"medians alone changed, by {found.medians - 1:+.1%}: noise of the machine, or of some requests"
    bounds = {"change": found.ratio - 1, "low": found.low - 1, "high": found.high - 1}
    return _with(line, **bounds, verdict=verdict, why=why)


def _quantities(before: Measured, now: Measured) -> Iterator[Line]:
    sides = [{(each.kind, each.subject, each.name): each for each in side.quantities} for side in (before, now)]
    for key in _either(*sides):
        old, new = (side.get(key) for side in sides)
        known = new or old
        assert known is not None
        earlier, value = (None if each is None else each.value for each in (old, new))
        line = Line(known.kind, known.subject, known.name, known.unit, earlier, value)
        if old is None or new is None:
            yield _with(line, why=_missing(old, new))
        elif old.made_on != new.made_on:
            yield _with(line, why=f"made on {new.made_on}, the baseline on {old.made_on}")
        else:
            yield _quantity(line, old, new)


def _quantity(line: Line, old: Quantity, new: Quantity) -> Line:
    relative, absolute = RESOLUTION[line.kind]
    difference = new.value - old.value
    # A count differs by one or not at all.
    least = 0.0 if line.unit == "" else max(relative * abs(old.value), absolute)
    verdict: Verdict = EQUAL
    if abs(difference) > least:
        verdict = BETTER if (difference < 0) == (new.better == "lower") else WORSE
    return _with(line, change=difference / old.value if relative and old.value else difference, verdict=verdict)


def _either(first: Mapping[Any, Any], second: Mapping[Any, Any]) -> list[Any]:
    return list(dict.fromkeys([*first, *second]))


def _missing(before: object | None, now: object | None) -> str:
    if before is None and now is None:
        return "not known on either side"
    if before is None:
        return "not in the baseline"
    return "not measured now" if now is None else ""


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _with(line: Line, **changes: Any) -> Line:
    return Line(**{**asdict(line), **changes})


def _gated(line: Line, gates: Gates) -> Line:
    allowed = getattr(gates, line.kind.replace(" ", "_"))
    if line.verdict != WORSE or allowed is None or line.change is None:
        return line
    in_percent = line.kind in ("metric", "latency") or RESOLUTION[line.kind][0] > 0
    return _with(line, regression=abs(line.change) * (100 if in_percent else 1) > allowed)
