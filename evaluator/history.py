"""`evaluator history`: the headline metrics of a workspace over its versions, oldest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluator.compare import change, subject_json
from evaluator.measuring import BENCH
from evaluator.subjects import Subject, subjects_of
from shared.answer import Answer
from shared.errors import InputError, UsageError
from shared.files import write_json
from shared.latency import TOTAL, milliseconds
from shared.table import MISSING, Table, number
from shared.versions import versions
from shared.workspace import Workspace

#: Name of the workspace's current state, which is not a version.
NOW = "now"
#: How many headline numbers are shown by default.
_SHOWN = 3


@dataclass(frozen=True)
class Evaluated:
    """A version that was evaluated.

    Attributes:
        version: its name; None: the workspace as it is.
        subjects: its evaluated runs.
        baseline: whether it is marked as a baseline.
        benches: median of `runtime bench` [ms], by run.
    """

    version: str | None
    subjects: Sequence[Subject]
    baseline: bool
    benches: Mapping[str, float]

    @property
    def title(self) -> str:
        """Its name for a table: ``v1 (baseline)``."""
        return f"{self.version or NOW} (baseline)" if self.baseline else self.version or NOW


def history(work: Path, metrics: Sequence[str], output: Path | None) -> Answer:
    """Headline numbers and latency of every evaluated run, by version. Returns what to print.

    A number is compared with the same run's in the version before.

    Raises:
        UsageError: no such metric.
        InputError: nothing was evaluated yet.
    """
    Workspace.open(work)
    evaluated, left_out = evaluated_versions(work)
    if not evaluated:
        raise InputError("nothing is evaluated here", where=str(work), hint=f"evaluator evaluate --work {work}")
    shown = _metric_names(metrics, [subject for one in evaluated for subject in one.subjects])
    rows, records = [], []
    before: dict[str, Subject] = {}
    for one in evaluated:
        for subject in one.subjects:
            earlier = before.get(subject.run)
            changed = None if earlier is None else change(earlier, subject)
            rows.append(_row(one, subject, shown, changed))
            bench = one.benches.get(subject.run)
            record = {**subject_json(subject), "baseline": one.baseline, "bench_ms": bench, "change": changed}
            records.append(record)
            before[subject.run] = subject
    data = {"workspace": str(work), "history": records}
    if output is not None:
        write_json(output, data)
    first = f"change of {shown[0]}" if shown else "change"
    columns = ["version", "made (UTC)", "run", *shown, first, "median [ms]", "latency", "bench [ms]"]
    return Answer("\n".join([Table(f"History of {work}", columns, rows).text(), *left_out]), data)


def evaluated_versions(work: Path) -> tuple[list[Evaluated], list[str]]:
    """The versions of a workspace that were evaluated, oldest first, then its current state; and why others are not."""
    kept = [(version.name, version.baseline, version.manifest) for version in versions(work)]
    evaluated, left_out = [], []
    for name, baseline, manifest in [*kept, (None, False, Workspace.open(work).manifest())]:
        benches = {run: result["stages"][TOTAL]["median"] for run, result in manifest.results.get(BENCH, {}).items()}
        try:
            evaluated.append(Evaluated(name, subjects_of(work, name, None), baseline, benches))
        except InputError as error:
            left_out.append(f"{name or NOW}: left out, {error.message}")
    return evaluated, left_out


def _metric_names(metrics: Sequence[str], subjects: Sequence[Subject]) -> list[str]:
    """The metrics to show: those asked for, else the first few of the headline.

    Raises:
        UsageError: one that was never evaluated.
    """
    known = list(dict.fromkeys(name for subject in subjects for name in subject.evaluation["headline"]))
    for name in metrics:
        if name not in known:
            raise UsageError(f"no metric '{name}'", where="--metric", hint=f"there are: {', '.join(known)}")
    return list(metrics) or known[:_SHOWN]


def _row(one: Evaluated, subject: Subject, shown: Sequence[str], changed: dict[str, Any] | None) -> list[str]:
    headline, latency = subject.evaluation["headline"], subject.evaluation["latency"][TOTAL]
    of_first = None if changed is None or not shown else changed["metrics"].get(shown[0])
    return [
        one.title,
        subject.created[:16],
        subject.run,
        *(number(headline.get(name), 4) for name in shown),
        MISSING if of_first is None else f"{of_first['difference']:+.4f} ({of_first['verdict']})",
        milliseconds(latency, "median", 1),
        MISSING if changed is None else str(changed["latency"]),
        number(one.benches.get(subject.run), 1),
    ]
