"""`evaluator compare`: runs, workspaces and versions side by side, and whether they differ significantly.

A difference is *paired* where both were evaluated on the same frames: their replicates are of the same draws, so that
what is hard in a frame is hard for both and drops out of the interval. Otherwise there is no interval of the
difference, and two values differ if their own intervals don't overlap. Numbers that depend on settings of their metric
which are not the same are not judged. Latencies differ if the intervals of their medians don't overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluator.bootstrap import CONFIDENCE, Interval, differences
from evaluator.comparison import class_table, side_by_side
from evaluator.stored import Replicates, settings_by_number
from evaluator.subjects import Subject, find_subjects
from shared.answer import Answer
from shared.errors import InputError, UsageError
from shared.files import write_json
from shared.latency import TOTAL, compare
from shared.table import MISSING, Table

SAME = "no difference"
HIGHER, LOWER, UNKNOWN = "higher", "lower", "unknown"
#: The verdict on numbers that were computed otherwise: their difference says nothing of the models.
OTHER_SETTINGS = "other settings"
#: Changes too small for four digits count as rounding, however certain they are.
_RESOLUTION = 5e-5


def compare_subjects(texts: Sequence[str], work: Path | None, output: Path | None) -> Answer:
    """Compare evaluated runs (`evaluator.subjects`; none: those of ``work``), all others with the first.

    Returns what to print.

    Raises:
        UsageError: fewer than two runs, or one named twice.
        InputError: runs of different tasks, or not evaluated.
    """
    if not texts and work is None:
        raise UsageError(
            "nothing to compare", where="compare", hint="name runs, workspaces or versions, or give --work"
        )
    subjects = find_subjects(texts or [str(work)], work)
    if len(subjects) < 2:
        raise UsageError("one run only", where="compare", hint="name at least two runs, workspaces or versions")
    first = subjects[0]
    for subject in subjects:
        if subject.task != first.task:
            raise InputError(
                f"is of task {subject.task}, {first.label} of {first.task}",
                where=subject.label,
                hint="only runs of the same task can be compared",
            )
    changes = {subject.label: change(first, subject) for subject in subjects[1:]}
    data = {
        "task": first.task,
        "baseline": first.label,
        "subjects": [subject_json(subject) for subject in subjects],
        "differences": changes,
    }
    if output is not None:
        write_json(output, data)
    return Answer("\n\n".join(table.text() for table in _tables(subjects, changes)), data)


def subject_json(subject: Subject) -> dict[str, Any]:
    """The JSON of one run."""
    run = subject.evaluation["run"]
    return {
        "label": subject.label,
        "workspace": str(subject.workspace),
        "version": subject.version,
        "run": subject.run,
        "created": subject.created,
        "backend": run["backend"],
        "device": run["device"],
        "samples": run["samples"],
        "precision": subject.precision,
        "model_bytes": subject.model_bytes,
        "metrics": subject.evaluation["headline"],
        "intervals": subject.evaluation["intervals"],
        "classes": subject.per_class(),
        "latency": subject.evaluation["latency"],
    }


def change(before: Subject, after: Subject) -> dict[str, Any]:
    """How ``after`` differs from ``before``.

    Returns:
        ``paired``; ``metrics``: see `metric_changes`; ``latency``: a verdict.
    """
    sides = [
        Numbers(
            each.evaluation["frames"],
            each.evaluation["headline"],
            each.evaluation["intervals"],
            each.replicates,
            settings_by_number(each.evaluation),
        )
        for each in (before, after)
    ]
    latencies = (after.evaluation["latency"][TOTAL], before.evaluation["latency"][TOTAL])
    return {
        "paired": are_paired(*sides),
        "metrics": metric_changes(*sides),
        "latency": compare(*latencies),
    }


@dataclass(frozen=True)
class Numbers:
    """The headline numbers of a run.

    Attributes:
        frames: sha256 of what replicates were drawn from.
        headline: the numbers by name.
        intervals: of those.
        replicates: behind the intervals.
        computed_with: see `evaluator.stored.settings_by_number`.
    """

    frames: str
    headline: Mapping[str, float | None]
    intervals: Mapping[str, Interval | None]
    replicates: Replicates
    computed_with: Mapping[str, str]


def are_paired(before: Numbers, after: Numbers) -> bool:
    """Whether both are of the same frames, so that their differences are frame by frame."""
    draws = {len(values) for each in (before, after) for values in each.replicates.values()}
    return before.frames == after.frames and len(draws) == 1


def metric_changes(before: Numbers, after: Numbers) -> dict[str, dict[str, Any]]:
    """By name ``difference`` (after minus before), ``interval`` of it (paired ones that are judged), ``verdict``."""
    paired = are_paired(before, after)
    intervals = differences(after.replicates, before.replicates) if paired else {}
    metrics: dict[str, Any] = {}
    for name, value in after.headline.items():
        earlier = before.headline.get(name)
        if earlier is None or value is None:
            continue
        bounds = intervals.get(name)
        if before.computed_with.get(name) != after.computed_with.get(name):
            bounds, verdict = None, OTHER_SETTINGS
        elif paired:
            verdict = _paired_verdict(bounds)
        else:
            verdict = _unpaired_verdict(before.intervals.get(name), after.intervals.get(name))
        metrics[name] = {"difference": value - earlier, "interval": bounds, "verdict": verdict}
    return metrics


def _paired_verdict(difference: Interval | None) -> str:
    if difference is None:
        return UNKNOWN
    if difference["low"] <= _RESOLUTION and difference["high"] >= -_RESOLUTION:
        return SAME
    return HIGHER if difference["low"] > 0 else LOWER


def _unpaired_verdict(before: Interval | None, after: Interval | None) -> str:
    if before is None or after is None:
        return UNKNOWN
    if after["low"] <= before["high"] and before["low"] <= after["high"]:
        return SAME
    return HIGHER if after["low"] > before["high"] else LOWER


# -- for a terminal ---------------------------------------------------------------------------------------------------


def _tables(subjects: Sequence[Subject], changes: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    table = side_by_side({subject.label: subject.evaluation for subject in subjects})
    about = [
        ["samples", *(str(subject.evaluation["run"]["samples"]) for subject in subjects)],
        ["precision", *(subject.precision for subject in subjects)],
        ["model [MB]", *(_megabytes(subject.model_bytes) for subject in subjects)],
    ]
    tables = [Table(table.title, table.columns, [*table.rows, *about])]
    classes = class_table({subject.label: subject.per_class() for subject in subjects})
    return [*tables, *([] if classes is None else [classes]), _change_table(subjects, changes)]


def _megabytes(size: int | None) -> str:
    return MISSING if size is None else f"{size / 1e6:.2f}"


def _change_table(subjects: Sequence[Subject], changes: Mapping[str, Mapping[str, Any]]) -> Table:
    first, rows = subjects[0], []
    for label, found in changes.items():
        for name, values in found["metrics"].items():
            bounds = values["interval"] or {"low": np.nan, "high": np.nan}
            numbers = [MISSING if np.isnan(v) else f"{v:+.1e}" for v in (values["difference"], *bounds.values())]
            rows.append([label, name, *numbers, values["verdict"]])
        rows.append([label, "latency (median)", "", "", "", found["latency"]])
    paired = {found["paired"] for found in changes.values()}
    frames = {(True,): "same frames", (False,): "other frames"}.get(tuple(paired), "paired where frames are the same")
    if paired == {False} and len({subject.evaluation["frames"] for subject in subjects}) == 1:
        frames = "same frames, too few for intervals"
    if any(values["verdict"] == OTHER_SETTINGS for found in changes.values() for values in found["metrics"].values()):
        frames = f"metrics computed with other settings not judged, {frames}"
    title = f"Differences from {first.label}, {frames} ({CONFIDENCE:.0%} intervals)"
    return Table(title, ["", "metric", "difference", "low", "high", "verdict"], rows)
