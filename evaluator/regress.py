"""`evaluator regress`: what is measured now against a baseline (`evaluator.regress_lines`), recorded and judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluator.measured import Measured, read_measured
from evaluator.measuring import measured
from evaluator.regress_lines import BETTER, EQUAL, NOT_COMPARABLE, WORSE, Line, compare
from shared.answer import Answer
from shared.config.gates_section import Gates
from shared.errors import GateFailed, InputError, UsageError
from shared.files import sha256_of_json
from shared.junit import Case, write_junit
from shared.latency import TOTAL
from shared.table import MISSING, Table
from shared.versions import KeptWorkspace, read_version, versions
from shared.workspace import Workspace

STAGE = "regress"
RECORD = "regress/regress.json"


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
        InputError: the file is none or not there, or nothing was measured in the version.
    """
    if baseline is not None and (work is None or _is_file(baseline, work)):
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


def _is_file(baseline: str, work: Path) -> bool:
    """Whether a file is meant: one that is there, or what reads like one and names no version."""
    if Path(baseline).is_file() or "/" in baseline:
        return True
    return baseline.endswith(".json") and all(version.name != baseline for version in versions(work))


def record(workspace: Workspace, before: Measured, lines: Sequence[Line], result: Mapping[str, Any]) -> None:
    """Keep the result in the workspace, for the report and `manifest show`: a verdict only where one was compared."""
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
                **({"passed": not regressions} if _is_compared(lines) else {}),
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
    if not _is_compared(lines):
        reason = lines[0].why if lines else "the two have no number in common"
        raise InputError(f"nothing can be compared: {reason}", where="regress", answer=answer)


def _is_compared(lines: Sequence[Line]) -> bool:
    return any(line.verdict != NOT_COMPARABLE for line in lines)


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
