"""The recipe: evaluations, runs, samples; the sections; one HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evaluator.report import (
    attribution,
    engines,
    graphs,
    latency,
    metrics,
    origin,
    overview,
    page,
    pictures,
    precisions,
    regressions,
    trend,
    verification,
)
from evaluator.report.blocks import Section
from evaluator.report.material import OWN_STAGE, Material, evaluated_runs, find_dataset, read_samples
from evaluator.report.tasks import TaskReport, find_task
from shared import __version__, plugins
from shared.added import added_versions, data_members
from shared.errors import BuildError
from shared.files import sha256_of_json
from shared.precision import shown
from shared.several_tasks import names_of
from shared.versions import versions
from shared.workspace import Workspace

OUTPUT = "report/index.html"

#: A report should fit into a mail and open on a phone.
MOST_BYTES = 10_000_000

# The sections in the order of the page; those that have nothing to say are left out.
_SECTIONS = (
    overview.section,
    regressions.section,
    metrics.section,
    pictures.section,
    trend.section,
    verification.section,
    attribution.section,
    latency.section,
    precisions.section,
    engines.section,
    graphs.section,
    origin.section,
)
# Those of a model of several tasks of which each task has its own.
_OF_EACH_TASK = (metrics.section, pictures.section)
# Artifacts that the page is made from.
_KINDS = ("evaluation", "verification", "attribution", "engine-record", "latency", "onnx", "pareto", "regress")


def report(work: Path, data_root: Path | None, force: bool, rerun: Path | None = None) -> str:
    """Write the report of a workspace. Returns what to print.

    Raises:
        InputError: nothing was evaluated, half a run, or ``data_root`` is not the data of the runs.
        EnvironmentLacks: a package is missing.
        BuildError: the page would be larger than a report may be.
    """
    from shared.config import from_resolved

    workspace = Workspace.open(work)
    spec = workspace.spec()
    config = from_resolved(workspace.config(), str(work))
    evaluations, runs = evaluated_runs(workspace, config)
    dataset, missing = find_dataset(workspace, config, runs, data_root)
    tasks = [task for name in names_of(spec.task) if (task := find_task(name)) is not None]
    stage = workspace.stage(
        OWN_STAGE,
        tool="evaluator",
        config={"stages": _what_happened(workspace), "files": _have_files(tasks, dataset)},
        inputs={
            **_hashes(workspace),
            "page": page.digest(),
            "versions": sha256_of_json([[version.name, version.created] for version in versions(workspace.root)]),
            "data": "none" if dataset is None else dataset.digest(),
        },
        versions=added_versions(
            [
                (plugins.TASKS, spec.task),
                (plugins.METRICS, spec.task),
                (plugins.REPORTS, spec.task),
                *data_members(config.data),
            ]
        ),
    )
    lines = []
    if force or rerun is not None or not stage.up_to_date():
        samples, missing = read_samples(dataset, missing, runs, spec)
        material = Material(workspace, workspace.manifest(), spec, evaluations, runs, samples, missing)
        with stage:
            stage.text_artifact(OUTPUT, "report", _page(material))
        if rerun is not None:
            from evaluator.report.rerun_file import write_rerun

            lines.append(write_rerun(rerun, material))
    path = workspace.artifact(OUTPUT)
    return "\n".join([f"Report: {path.resolve()} ({path.stat().st_size / 1e6:.1f} MB)", *lines])


def _page(material: Material) -> str:
    sections = list(_sections(material))
    spec = material.spec
    counts = {len(run) for run in material.runs.values()}
    samples = f", {max(counts)} sample{'' if max(counts) == 1 else 's'}" if counts else ""
    recorded = [evaluation["run"].get("precision") for evaluation in material.evaluations.values()]
    precisions = dict.fromkeys(shown(precision) for precision in recorded if precision is not None)
    html = page.render(
        f"{', '.join([spec.model, *precisions])}: deployment report",
        f"{spec.task}, {len(spec.classes)} classes{samples}; runs: {', '.join(material.runs) or 'none'}",
        sections,
        {"Workspace": material.workspace.root.resolve().name, "Made by": f"evaluator {__version__}"},
    )
    if len(html.encode()) > MOST_BYTES:
        raise BuildError(
            f"the report would have {len(html.encode()) / 1e6:.1f} MB, at most {MOST_BYTES / 1e6:.0f} are allowed"
        )
    return html


def _sections(material: Material) -> Iterator[Section]:
    for section in _SECTIONS:
        for name, part in (material.parts() if section in _OF_EACH_TASK else {"": material}).items():
            found = section(part, find_task(part.spec.task))
            if found is not None:
                yield replace(found, key=f"{found.key}-{name}", title=f"{found.title}, {name}") if name else found


def _hashes(workspace: Workspace) -> dict[str, str]:
    """Hashes of the artifacts that the page is made from, by path."""
    artifacts = workspace.manifest().artifacts
    return {path: record.sha256 for path, record in artifacts.items() if record.kind in _KINDS or "runs/" in path}


def _what_happened(workspace: Workspace) -> dict[str, Any]:
    """Status of the other stages, all of which the page describes."""
    stages = workspace.manifest().stages
    return {name: [stage.fingerprint, stage.status, stage.ended] for name, stage in stages.items() if name != OWN_STAGE}


def _have_files(tasks: Sequence[TaskReport], dataset: Any) -> bool:
    """Whether the files that pictures are drawn from are there, going by the first sample."""
    return dataset is not None and bool(tasks) and all(task.source(dataset.sample(0)).is_file() for task in tasks)
