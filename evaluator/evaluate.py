"""The recipe: the finished runs that the config enables, ground truth, metrics and latency, tables, record."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluator.latency import latency_table, run_latency
from evaluator.metrics import Metric, find_metric
from shared.errors import InputError
from shared.latency import TOTAL
from shared.manifest import Manifest
from shared.runs import Run
from shared.table import Table, number
from shared.workspace import Workspace

if TYPE_CHECKING:
    from shared.config import DeployConfig
    from shared.data import Dataset

STAGE = "evaluate"
#: Folder of the runs in the workspace; the framework reference lies elsewhere and has no latency to speak of.
RUNS = "runs"

_log = logging.getLogger(STAGE)


def evaluate(work: Path, data_root: Path | None, force: bool) -> str:
    """Evaluate the runs of a workspace and record the result.

    Args:
        work: the workspace.
        data_root: where the data set lies, when elsewhere than the config says.
        force: evaluate although nothing changed.

    Returns:
        What to print.

    Raises:
        InputError: no finished run, runs of different samples or data, or a run that no metric can be computed from.
    """
    from shared.config import from_resolved, part
    from shared.data import open_dataset

    workspace = Workspace.open(work)
    config = from_resolved(workspace.config(), str(work))
    stage_config = part(config, "evaluation", "data", "task_type")
    if not config.evaluation.enabled:
        reason = "evaluation.enabled is false"
        workspace.stage(STAGE, tool="evaluator", config=stage_config).skip(reason)
        return f"evaluation skipped: {reason}"

    folders = finished_runs(workspace, config)
    runs = [Run.open(workspace.path(folder)) for folder in folders]
    dataset = open_dataset(config.data, root=data_root)
    check_runs(runs, dataset, workspace)
    stage = workspace.stage(
        STAGE, tool="evaluator", config=stage_config, inputs={"data": dataset.digest(), **_hashes(workspace, folders)}
    )
    if force or not stage.up_to_date():
        spec = workspace.spec()
        metric = find_metric(spec.task)
        with stage:
            samples = (dataset.sample(index) for index in range(len(runs[0])))
            truth = metric.ground_truth(samples, dataset.classes, spec.classes)
            if truth is None:
                _log.warning("the data set has no labels: latency only, no metrics")
            for run in runs:
                evaluation = evaluate_run(run, truth, metric, spec.classes)
                name = run.folder.name
                with stage.artifact(f"evaluation/{name}.json", kind="evaluation") as path:
                    path.write_text(json.dumps(evaluation, indent=1, allow_nan=False) + "\n", encoding="utf-8")
                if truth is not None:
                    stage.result("metrics", name, metric.headline(evaluation["metrics"]))
                stage.result("latency", name, evaluation["latency"])
    return "\n\n".join(table.text() for table in evaluation_tables(workspace))


def evaluate_run(run: Run, truth: Any, metric: Metric, classes: Sequence[str]) -> dict[str, Any]:
    """Metrics and latency of one run.

    Args:
        run: the run.
        truth: what the metric's ``ground_truth`` gave; None: no metrics.
        metric: the metric of the task.
        classes: class list of the model.

    Returns:
        JSON: ``run`` (who), ``metrics`` (the metric's result, or None), ``latency`` (statistics by stage).

    Raises:
        InputError: the run holds what no metric can be computed from.
    """
    return {
        "run": {
            "name": run.folder.name,
            "backend": run.header.backend,
            "device": run.header.device,
            "samples": len(run),
            "details": run.header.details,
        },
        "metrics": None if truth is None else metric.evaluate(run, truth, classes),
        "latency": run_latency(run),
    }


def finished_runs(workspace: Workspace, config: DeployConfig) -> list[str]:
    """Folders of the finished runs of the backends that the config enables, files checked against their hashes.

    Raises:
        InputError: there is none, or a run of an enabled backend was started and did not finish.
        ManifestError: a file of a run is missing or was changed.
    """
    manifest = workspace.manifest()
    enabled = {backend for backend, settings in config.evaluation.backends if settings.enabled}
    folders = []
    for path, record in sorted(manifest.artifacts.items()):
        parts = Path(path).parts
        if len(parts) != 3 or parts[0] != RUNS or parts[2] != "run.json" or parts[1].split("-")[0] not in enabled:
            continue
        stage = manifest.stages[record.stage]
        if stage.status == "done":
            folders.append(f"{RUNS}/{parts[1]}")
            for relative in run_files(manifest, folders[-1]):
                workspace.artifact(relative)
    for name, stage in manifest.stages.items():
        kind, _, subject = name.partition(":")
        if kind == "run" and subject.split("-")[0] in enabled and stage.status in ("failed", "running"):
            raise InputError(
                f"run '{subject}' is '{stage.status}', not finished ({stage.reason or 'no reason given'})",
                where=str(workspace.root),
                hint=f"run it again, it goes on where it stopped: {stage.command}",
            )
    if not folders:
        raise InputError(
            f"no finished run of {', '.join(sorted(enabled)) or 'any backend'}",
            where=str(workspace.root),
            hint=f"run a backend first: runtime run --backend onnx --work {workspace.root}",
        )
    return folders


def run_files(manifest: Manifest, folder: str) -> list[str]:
    """Artifacts of the run in ``folder`` that the evaluation reads: all but raw outputs."""
    return sorted(path for path in manifest.artifacts if str(Path(path).parent) == folder)


def check_runs(runs: Sequence[Run], dataset: Dataset, workspace: Workspace) -> None:
    """Refuse runs that can't be compared with one another or with the data set.

    Raises:
        InputError: runs of another model, class list or data set, of different samples, or empty.
    """
    spec, digest = workspace.spec(), dataset.digest()
    tokens = [dataset.sample(index).token for index in range(min(len(dataset), max(map(len, runs))))]
    for run in runs:
        header, where = run.header, str(run.folder)
        if not header.tokens:
            raise InputError("the run holds no samples", where=where, hint="run it again on one sample at least")
        if header.tokens != runs[0].header.tokens:
            raise InputError(
                f"its {len(run)} samples are not the {len(runs[0])} of {runs[0].folder.name}",
                where=where,
                hint="run all backends on the same samples",
            )
        if (header.model, header.task, header.classes) != (spec.model, spec.task, list(spec.classes)):
            raise InputError("the run is of another model or class list", where=where, hint="run it again")
        if header.dataset != digest or header.tokens != tokens[: len(header.tokens)]:
            raise InputError(
                f"the run is of other data than data set '{dataset.name}'",
                where=where,
                hint="check data in the config and --data, or run it again",
            )


def _hashes(workspace: Workspace, folders: Sequence[str]) -> dict[str, str]:
    manifest = workspace.manifest()
    return {path: manifest.artifacts[path].sha256 for folder in folders for path in run_files(manifest, folder)}


def stored_evaluations(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """The evaluations of the last ``evaluate``, by run.

    Raises:
        ManifestError: a file was changed.
    """
    stage = workspace.manifest().stages.get(STAGE)
    if stage is None or stage.status != "done":
        return {}
    return {
        Path(relative).stem: json.loads(workspace.artifact(relative).read_text(encoding="utf-8"))
        for relative in stage.outputs
    }


def evaluation_tables(workspace: Workspace) -> list[Table]:
    """Everything that was evaluated, for a terminal: metrics and latency per run, then the runs side by side."""
    evaluations = stored_evaluations(workspace)
    metric = find_metric(workspace.spec().task)
    tables = []
    for name, evaluation in evaluations.items():
        if evaluation["metrics"] is not None:
            tables += [
                Table(f"{name}: {table.title}", table.columns, table.rows)
                for table in metric.tables(evaluation["metrics"])
            ]
        tables.append(latency_table(evaluation["latency"], name))
    return [*tables, side_by_side(evaluations, metric)]


def side_by_side(evaluations: dict[str, dict[str, Any]], metric: Metric) -> Table:
    """Headline numbers and latency, one column a run."""
    headlines = {
        run: {} if evaluation["metrics"] is None else metric.headline(evaluation["metrics"])
        for run, evaluation in evaluations.items()
    }
    names = list(dict.fromkeys(name for headline in headlines.values() for name in headline))
    rows = [[name, *(number(headline.get(name), 4) for headline in headlines.values())] for name in names]
    totals = [evaluation["latency"][TOTAL] for evaluation in evaluations.values()]
    for name in ("mean", "median", "p99"):
        rows.append([f"latency {name} [ms]", *(number(total.get(name), 1) for total in totals)])
    return Table("Runs side by side", ["", *evaluations], rows)
