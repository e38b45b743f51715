"""`evaluator baseline`: versions of a workspace that later states are compared with, and their files for git."""

from __future__ import annotations

from pathlib import Path

from evaluator.measured import Measured, write_measured
from evaluator.measuring import measured
from evaluator.regress import shown
from shared.answer import Answer
from shared.errors import UsageError
from shared.latency import TOTAL
from shared.table import MISSING, Table, number
from shared.versions import KeptWorkspace, Version, read_version, tag, untag, versions
from shared.workspace import Workspace


def set_baseline(work: Path, name: str, note: str, *, move: bool, file: Path | None) -> str:
    """Keep what is measured now as version ``name``, and mark it. Returns what to print.

    Args:
        work: the workspace.
        name: of the version.
        note: what the user says of it.
        move: replace an earlier version of that name.
        file: also write it there, see `export`.

    Raises:
        UsageError: the name is taken, or makes no file name.
        InputError: nothing is measured.
        ManifestError: an artifact is missing or was changed.
    """
    measured(Workspace.open(work))
    version = tag(work, name, note=note, move=move, baseline=True).version
    kept = measured(KeptWorkspace(work, version))
    lines = [f"{name}: {_counts(kept)}"]
    if file is not None:
        write_measured(file, kept)
        lines.append(_written(file))
    return "\n".join(lines)


def list_baselines(work: Path) -> Answer:
    """The baselines of a workspace, oldest first."""
    Workspace.open(work)
    kept = [measured(KeptWorkspace(work, version)) for version in versions(work) if version.baseline]
    data = {"baselines": [{"name": each.name, "created": each.created, "note": each.note} for each in kept]}
    if not kept:
        return Answer("no baseline yet: evaluator baseline set NAME makes one", data)
    rows = [[each.name, each.created[:16], _counts(each), each.note] for each in kept]
    return Answer(Table(f"Baselines of {work}", ["baseline", "made (UTC)", "measured", "note"], rows).text(), data)


def show_baseline(work: Path, name: str) -> Answer:
    """Everything that a baseline holds.

    Raises:
        UsageError: there is none of that name.
    """
    kept = measured(KeptWorkspace(work, _baseline(work, name)))
    return Answer("\n\n".join(table.text() for table in tables(kept)), kept.model_dump(mode="json"))


def remove_baseline(work: Path, name: str) -> str:
    """Let a baseline go, with the files that no other version has. Returns what to print.

    Raises:
        UsageError: there is none of that name.
    """
    _baseline(work, name)
    return f"{name} is gone, {untag(work, name) / 1e6:.1f} MB freed"


def export(work: Path, name: str, file: Path) -> str:
    """Write a version as a file for git. Returns what to print.

    Raises:
        UsageError: there is no such version.
        InputError: nothing was measured in it.
    """
    write_measured(file, measured(KeptWorkspace(work, read_version(work, name))))
    return _written(file)


def _baseline(work: Path, name: str) -> Version:
    version = read_version(work, name)
    if not version.baseline:
        raise UsageError(
            f"version '{name}' is no baseline",
            where=str(work),
            hint="evaluator baseline set NAME makes one of what is here",
        )
    return version


def _written(file: Path) -> str:
    return f"written: {file} ({file.stat().st_size / 1e3:.0f} kB)"


def _counts(kept: Measured) -> str:
    metrics = sum(len(scores.values) for scores in kept.scores.values())
    return f"{metrics} metrics, {len(kept.latencies)} latencies, {len(kept.quantities)} other numbers"


def tables(kept: Measured) -> list[Table]:
    """Everything that was measured: metrics, latencies, other numbers."""
    metrics = [
        [run, name, number(value, 4), str(scores.samples)]
        for run, scores in kept.scores.items()
        for name, value in scores.values.items()
    ]
    latencies = [
        [
            run,
            str(position),
            f"{each.requests}",
            _disturbed(each.disturbed),
            f"{each.stages[TOTAL].fastest:.3f}",
            f"{each.stages[TOTAL].median:.3f}",
        ]
        for run, rounds in kept.latencies.items()
        for position, each in enumerate(rounds, start=1)
    ]
    others = [[each.kind, each.subject, each.name, shown(each.value, each.unit)] for each in kept.quantities]
    place = ", ".join(part for part in (kept.machine.host, kept.machine.processor, kept.machine.gpu) if part)
    return [
        Table(f"Metrics of {kept.name}, {kept.created[:16]}", ["run", "metric", "value", "samples"], metrics),
        Table(
            f"Latency of requests [ms], on {place}",
            ["run", "process", "requests", "disturbed", "fastest", "median"],
            latencies,
        ),
        Table("Other numbers", ["kind", "of", "", "value"], others),
    ]


def _disturbed(count: int | None) -> str:
    return MISSING if count is None else str(count)
