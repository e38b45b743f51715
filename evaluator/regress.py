"""`evaluator regress`: what is measured now against a baseline, a verdict a line.

*Metrics* as `evaluator.compare` has it: paired intervals on the same frames. *Latencies* by `evaluator.latency_change`,
on the same machine at the same speed. *All others* are numbers without an interval; they differ where they differ by
more than `RESOLUTION`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evaluator.compare import HIGHER, LOWER, SAME, UNKNOWN, Numbers, are_paired, metric_changes
from evaluator.latency_change import latency_change, quiet, why_not_comparable
from evaluator.measured import Measured, Quantity, Round, Scores, read_measured
from evaluator.measuring import measured, stages_of
from shared.answer import Answer
from shared.config.gates_section import Gates
from shared.errors import GateFailed, InputError, UsageError
from shared.files import sha256_of_json
from shared.junit import Case, write_junit
from shared.latency import TOTAL
from shared.table import MISSING, Table
from shared.versions import KeptWorkspace, read_version, versions
from shared.workspace import Workspace

if TYPE_CHECKING:
    from evaluator.measured import Kind

Verdict = Literal["better", "worse", "no difference", "not comparable"]

BETTER: Verdict = "better"
WORSE: Verdict = "worse"
EQUAL: Verdict = "no difference"
NOT_COMPARABLE: Verdict = "not comparable"

STAGE = "regress"
RECORD = "regress/regress.json"

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


def regress(work: Path | None, file: Path | None, baseline: str | None, junit: Path | None = None) -> Answer:
    """Compare a workspace, or a file of measurements, with a baseline. A workspace records the result.

    Args:
        work: the workspace; None: ``file`` is compared.
        file: of `evaluator baseline export` or the benchmark suite, in place of what the workspace measured.
        baseline: a version of the workspace, or such a file; None: the workspace's last baseline.
        junit: file for every line and its verdict, see `shared.junit`; None: none.

    Raises:
        UsageError: neither a workspace nor a file, or no such baseline.
        InputError: nothing is measured, or nothing can be compared, which shows nothing.
        GateFailed: the gates of the workspace's config call a line a regression; without a workspace the gates that a
            config has when it says nothing.
    """
    if file is None and work is None:
        raise UsageError("nothing to compare", where="regress", hint="give --work WORKSPACE, or a file")
    now = read_measured(file) if file is not None else measured(Workspace.open(Path(str(work))))
    before = find_baseline(work, baseline)
    lines = compare(before, now, Gates() if work is None else gates_of(work))
    result = {"baseline": before.name, "created": before.created, "lines": [asdict(line) for line in lines]}
    stage = None
    if work is not None and file is None:
        record(Workspace.open(work), before, lines, result)
        stage = Workspace.open(work).manifest().stages[STAGE]
    if junit is not None:
        write_junit(junit, "evaluator regress", [case_of(line) for line in lines], stage)
    answer = Answer(f"{table(title(before.name, before.created), lines).text()}\n\n{sentence(lines)}", result)
    judge(lines, answer)
    return answer


def gates_of(work: Path) -> Gates:
    """The gates of a workspace's config."""
    from shared.config import from_resolved

    return from_resolved(Workspace.open(work).config(), str(work)).gates


def find_baseline(work: Path | None, baseline: str | None) -> Measured:
    """The baseline of that name or file; None: the last one of the workspace.

    Raises:
        UsageError: there is none.
        InputError: the file is none, or nothing was measured in the version.
    """
    if baseline is not None and (work is None or Path(baseline).is_file()):
        return read_measured(Path(baseline))
    if work is None:
        raise UsageError("no baseline", where="regress", hint="give --baseline FILE")
    if baseline is not None:
        return measured(KeptWorkspace(work, read_version(work, baseline)))
    kept = [version for version in versions(work) if version.baseline]
    if not kept:
        raise UsageError(
            "there is no baseline",
            where=str(work),
            hint="make one: evaluator baseline set NAME, or give --baseline FILE",
        )
    return measured(KeptWorkspace(work, kept[-1]))


def record(workspace: Workspace, before: Measured, lines: Sequence[Line], result: Mapping[str, Any]) -> None:
    """Keep the result in the workspace, for the report and `manifest show`."""
    stage = workspace.stage(
        STAGE, tool="evaluator", config={"baseline": before.name, "content": sha256_of_json(before.model_dump())}
    )
    regressions = [line for line in lines if line.regression]
    with stage:
        stage.json_artifact(RECORD, "regress", result)
        stage.result(
            STAGE,
            "summary",
            {
                "baseline": before.name,
                "passed": not regressions,
                **{verdict: sum(line.verdict == verdict for line in lines) for verdict in _VERDICTS},
                "regressions": [f"{line.subject}: {line.name}" for line in regressions],
            },
        )


def judge(lines: Sequence[Line], answer: Answer) -> None:
    """Raise where the gates call a line a regression.

    Raises:
        GateFailed: they do.
        InputError: no line could be compared, which shows nothing.
    """
    regressions = [line for line in lines if line.regression]
    if regressions:
        more = f", and {len(regressions) - 1} more" if len(regressions) > 1 else ""
        raise GateFailed(
            f"{worse_by(regressions[0])}{more}",
            where="gates",
            hint="a change that is meant: evaluator baseline set NAME; what is allowed: gates of the config",
            answer=answer,
        )
    if all(line.verdict == NOT_COMPARABLE for line in lines):
        reason = lines[0].why if lines else "the two have no number in common"
        raise InputError(f"nothing can be compared: {reason}", where="regress", answer=answer)


# -- line by line -----------------------------------------------------------------------------------------------------


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
            verdict = _direction(found["verdict"], name in new.lower_is_better)
            yield _with(line, change=found["difference"], **bounds, verdict=verdict, why=why)


def _numbers(scores: Scores) -> Numbers:
    intervals = {name: None if each is None else each.model_dump() for name, each in scores.intervals.items()}
    return Numbers(scores.frames, scores.values, intervals, scores.drawn())


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


# -- for a terminal ---------------------------------------------------------------------------------------------------

_VERDICTS = (WORSE, BETTER, EQUAL, NOT_COMPARABLE)
_RELATIVE = ("latency", "size", "memory", "build time")


def title(baseline: str | None, created: str) -> str:
    """What is compared with, of a `Measured`."""
    return f"Against {baseline or 'the baseline'} of {created[:16]}"


def table(title: str, lines: Sequence[Line]) -> Table:
    """A row a line, what changed first; of a request that can't be compared, its stages are left out."""
    order = {verdict: place for place, verdict in enumerate(_VERDICTS)}
    rows = [
        [
            line.subject,
            line.name if line.kind in ("metric", "latency") else f"{line.kind}: {line.name}",
            shown(line.before, line.unit),
            shown(line.now, line.unit),
            shown_change(line),
            shown_interval(line),
            "WORSE" if line.regression else line.verdict,
            line.why,
        ]
        for line in sorted(lines, key=lambda line: order[line.verdict])
        if line.name == TOTAL or line.kind != "latency" or line.verdict != NOT_COMPARABLE
    ]
    columns = ["", "", "baseline", "now", "change", "interval", "verdict", ""]
    return Table(title, columns, rows)


def worse_by(line: Line) -> str:
    """A line that got worse, in words."""
    return f"{line.subject}: {line.name} is worse by {shown_change(line).lstrip('+-')}"


def case_of(line: Line) -> Case:
    """A line as a check: it fails where the gates call it a regression, and is skipped where it can't be compared."""
    failure = worse_by(line) if line.regression else None
    skipped = line.why if line.verdict == NOT_COMPARABLE else None
    return Case(line.subject or line.kind, f"{line.kind} {line.name}", failure, skipped)


def sentence(lines: Sequence[Line]) -> str:
    """``2 worse, 1 better, 20 no difference, 3 not comparable``."""
    return ", ".join(f"{sum(line.verdict == verdict for line in lines)} {verdict}" for verdict in _VERDICTS)


def shown(value: float | None, unit: str) -> str:
    """A number with its unit, as people read it."""
    if value is None:
        return MISSING
    if unit == "bytes":
        return f"{value / 1e6:.2f} MB"
    if unit:
        return f"{value:.4g} {unit}"
    return f"{value:g}" if value == int(value) else f"{value:.4f}"


def shown_change(line: Line) -> str:
    """The change of a line: in percent where it is relative."""
    if line.change is None:
        return MISSING
    return _amount(line, line.change)


def shown_interval(line: Line) -> str:
    """The interval of the change."""
    if line.low is None or line.high is None:
        return MISSING
    return f"{_amount(line, line.low)} to {_amount(line, line.high)}"


def _amount(line: Line, change: float) -> str:
    if line.kind in _RELATIVE:
        return f"{100 * change:+.1f} %"
    return f"{change:+.4f}" if not line.unit else f"{change:+.2f} {line.unit}"
