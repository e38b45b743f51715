"""The recipe: the finished runs that the config enables, ground truth, metrics and latency, tables, record."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from evaluator.bootstrap import differences, draw, intervals, replicate
from evaluator.boxes3d.settings import chosen
from evaluator.comparison import columns_of, difference_table, float_class_table, side_by_side, titled
from evaluator.float_model import find_float_model
from evaluator.gates import check_gates, gate_table, latency_names, parse_gate, refuse_unanswerable
from evaluator.latency import latency_csv, latency_table, run_latency
from evaluator.left_out import left_out
from evaluator.metrics import Metric, Truth, find_metric
from evaluator.selection import check_runs, finished_runs, run_hashes
from evaluator.stored import STAGE, Replicates, stored_evaluations
from shared import formats, plugins
from shared.added import added_versions, data_members
from shared.answer import Answer
from shared.arrays import write_arrays
from shared.config.check_sections import Evaluation
from shared.errors import GateFailed
from shared.files import sha256_of_json
from shared.junit import Case, write_junit
from shared.latency import TOTAL, round_of
from shared.precision import precision_in
from shared.runs import Run
from shared.stages import StageRun
from shared.table import Table, number
from shared.workspace import Workspace

_log = logging.getLogger(STAGE)


def evaluate(
    work: Path,
    data_root: Path | None = None,
    force: bool = False,
    gates: Sequence[str] = (),
    resample: str = "frames",
    float_work: Path | None = None,
    t4: Mapping[str, Any] | None = None,
    junit: Path | None = None,
) -> Answer:
    """Evaluate the runs of a workspace and record the result. Returns what to print.

    Args:
        work: the workspace.
        data_root: where the data set lies, when not where the config says.
        force: although nothing changed.
        gates: conditions under which a run fails, see `evaluator.gates`.
        resample: what is drawn for the intervals, ``frames`` or ``scenes``.
        t4: what stands in place of the config's ``evaluation.t4``, see `evaluator.boxes3d.settings.chosen`.
        float_work: the evaluated workspace of the float model that this INT8 one was made from.
        junit: file for every gate and its verdict, see `shared.junit`; None: none.

    Raises:
        UsageError: a gate names a run or number that does not exist, or `find_float_model` refuses ``float_work``.
        InputError: no finished run, runs of different samples or data, or a run that no metric can be computed from.
        GateFailed: a gate did not pass.
    """
    from shared.config import from_resolved, part
    from shared.data import open_dataset

    workspace = Workspace.open(work)
    config = from_resolved(workspace.config(), str(work))
    parsed_gates = [parse_gate(text) for text in gates]
    evaluation = config.evaluation.model_copy(
        update={"t4": chosen(config.evaluation.t4, dict(t4 or {}), workspace.spec().classes)}
    )
    stage_config = {
        **part(config, "data", "task_type"),
        "evaluation": evaluation.model_dump(mode="json"),
        "gates": list(gates),
        "resample": resample,
    }
    if not config.evaluation.enabled:
        reason = "evaluation.enabled is false"
        workspace.stage(STAGE, tool="evaluator", config=stage_config).skip(reason)
        _write_cases(junit, workspace, [Case(STAGE, text, skipped=reason) for text in gates])
        return Answer(f"evaluation skipped: {reason}", {"skipped": reason})

    folders = finished_runs(workspace, config)
    runs = [Run.open(workspace.path(folder)) for folder in folders]
    dataset = open_dataset(config.data, root=data_root, task=config.task_type)
    check_runs(runs, dataset, workspace)
    precisions = {run.folder.name: precision_in(run.header, workspace.config()) for run in runs}
    float_model = None
    if float_work is not None:
        quantized = config.quantization.enabled
        float_model = find_float_model(float_work, workspace.manifest(), workspace.spec(), quantized=quantized)
    stage_of = partial(
        workspace.stage,
        STAGE,
        tool="evaluator",
        inputs={
            "data": dataset.digest(),
            **run_hashes(workspace, folders),
            **({} if float_model is None else float_model.digests),
        },
        versions=added_versions(
            [
                (plugins.TASKS, config.task_type),
                (plugins.METRICS, config.task_type),
                *data_members(config.data),
            ]
        ),
    )
    spec = workspace.spec()
    metric = find_metric(spec.task)
    samples = partial(map, dataset.sample, range(len(runs[0])))
    stage = _due(stage_of, {**stage_config, "precision": precisions}, metric, samples, force=force)
    if stage is not None:
        if parsed_gates:
            known = [*metric.headline_names(spec.classes), *latency_names(run_latency(runs[0])[TOTAL])]
            names = [run.folder.name for run in runs]
            timed = min(int(run.timed().sum()) for run in runs)
            refuse_unanswerable(parsed_gates, names, baseline_of(runs).folder.name, known, timed)
        with stage:
            truth = metric.ground_truth(samples(), dataset.classes, spec.classes)
            if truth is None:
                _log.warning("the data set has no labels: latency only, no metrics")
            evaluations, replicates = evaluate_runs(runs, truth, metric, spec.classes, resample, evaluation)
            for folder, run in zip(folders, runs, strict=True):
                evaluations[run.folder.name]["round"] = round_of(run.timed_latencies(), _conditions(workspace, run))
                stage.lines_artifact(f"evaluation/{Path(folder).name}-latency.csv", "latency", latency_csv(run))
            for name, stored in evaluations.items():
                stored["run"]["precision"] = precisions[name]
                if float_model is not None:
                    stored["float"] = float_model.beside(stored, replicates[name])
                stage.json_artifact(f"evaluation/{name}.json", "evaluation", stored)
                with stage.artifact(f"evaluation/{name}.npz", kind="replicates") as path:
                    write_arrays(path, replicates[name], compressed=True)
                if truth is not None:
                    stage.result("metrics", name, stored["headline"])
                stage.result("latency", name, stored["latency"])
            stage.result("gates", "summary", {"gates": [*map(asdict, check_gates(parsed_gates, evaluations))]})
    text = "\n\n".join(table.text() for table in evaluation_tables(workspace))
    return _judge(workspace, text, junit)


def _due(
    stage_of: Callable[..., StageRun],
    settings: dict[str, Any],
    metric: Metric,
    samples: Callable[[], Iterator[Any]],
    *,
    force: bool,
) -> StageRun | None:
    """The stage, which depends on what the metric leaves out; None where it is up to date."""
    stage = stage_of(config=settings)
    # Before looking for files: what was evaluated whole stays so where they have gone since.
    if not force and stage.up_to_date():
        return None
    parts = left_out(metric, samples())
    if parts:
        stage = stage_of(config={**settings, "left_out": parts})
        if not force and stage.up_to_date():
            return None
    return stage


def _conditions(workspace: Workspace, run: Run) -> dict[str, str]:
    """What a run was measured on; empty for runs that several machines shared, and those of version 0.1."""
    recorded = workspace.manifest().results.get("runs", {}).get(run.folder.name, {})
    conditions: dict[str, str] = recorded.get("conditions", {})
    return conditions


def _judge(workspace: Workspace, text: str, junit: Path | None) -> Answer:
    """``text`` with the gates below it.

    Raises:
        GateFailed: one did not pass.
        ManifestError: their verdicts are not in the manifest.
    """
    results = workspace.result("gates", "summary", lists=("gates",))["gates"]
    lines = [None if result["passed"] else _failure(result) for result in results]
    cases = [Case(result["run"], result["gate"], line) for result, line in zip(results, lines, strict=True)]
    _write_cases(junit, workspace, cases)
    data = {"evaluations": stored_evaluations(workspace), "gates": results}
    if not results:
        return Answer(text, data)
    text += f"\n\n{gate_table(results).text()}"
    failed = [line for line in lines if line is not None]
    if failed:
        message = f"{failed[0]} ({len(failed)} of {len(results)} gates failed)"
        raise GateFailed(message, where="gates", answer=Answer(text, data))
    return Answer(text, data)


def _write_cases(junit: Path | None, workspace: Workspace, cases: Sequence[Case]) -> None:
    if junit is not None:
        write_junit(junit, "evaluator evaluate", cases, workspace.manifest().stages[STAGE])


def _failure(result: Mapping[str, Any]) -> str:
    return f"{result['run']}: {result['gate']}, the value is {number(result['value'], 4)}"


def evaluate_runs(
    runs: Sequence[Run],
    truth: Truth | None,
    metric: Metric,
    classes: Sequence[str],
    resample: str,
    settings: Evaluation,
) -> tuple[dict[str, dict[str, Any]], dict[str, Replicates]]:
    """Metrics, their intervals, and latency of runs over the same samples; without ``truth`` latency only.

    Returns:
        Per run, JSON: ``format``, ``run`` (who), ``frames`` (sha256 of what was drawn from: replicates of evaluations
        with the same are of the same frames), ``metrics`` (the metric's result, or None), ``headline`` (numbers),
        ``intervals`` of those, ``baseline`` (the run it is compared with, or None) and ``differences`` (intervals of
        run minus baseline), ``latency`` (statistics by stage). And per run, the replicates that intervals come from.

    Raises:
        InputError: a run holds what no metric can be computed from.
    """
    baseline = baseline_of(runs)
    draws = None if truth is None else draw(truth.scenes if resample == "scenes" else truth.tokens)
    results: dict[str, Any] = {}
    replicates: dict[str, Replicates] = {}
    for run in runs:
        name = run.folder.name
        results[name], replicates[name] = None, {}
        if truth is not None and draws is not None:
            matched = metric.match(run, truth, classes, settings)
            results[name] = metric.evaluate(matched)
            replicates[name] = replicate(draws, partial(metric.resample, matched), f"intervals of {name}")
    evaluations = {
        run.folder.name: {
            "format": formats.EVALUATION,
            "run": {
                "name": run.folder.name,
                "backend": run.header.backend,
                "device": run.header.device,
                "samples": len(run),
                "details": run.header.details,
            },
            "frames": _frames(run, truth, classes, resample),
            "metrics": results[run.folder.name],
            "headline": {} if truth is None else metric.headline(results[run.folder.name]),
            "intervals": intervals(replicates[run.folder.name]),
            "baseline": None if run is baseline else baseline.folder.name,
            "differences": {}
            if run is baseline
            else differences(replicates[run.folder.name], replicates[baseline.folder.name]),
            "latency": run_latency(run),
        }
        for run in runs
    }
    return evaluations, replicates


def _frames(run: Run, truth: Truth | None, classes: Sequence[str], resample: str) -> str:
    drawn = None if truth is None else [resample, truth.tokens, truth.scenes]
    return sha256_of_json([run.header.task, list(classes), run.header.dataset, run.header.tokens, drawn])


def baseline_of(runs: Sequence[Run]) -> Run:
    """The run that others are compared with: PyTorch's where there is one, else the first."""
    return next((run for run in runs if run.header.backend == "pytorch"), runs[0])


def evaluation_tables(workspace: Workspace) -> list[Table]:
    """Everything that was evaluated, for a terminal: metrics and latency per run, then the runs side by side."""
    evaluations = stored_evaluations(workspace)
    metric = find_metric(workspace.spec().task)
    tables = []
    for name, evaluation in evaluations.items():
        if evaluation["metrics"] is not None:
            tables += [
                Table(f"{titled(name, evaluation)}: {table.title}", table.columns, table.rows)
                for table in metric.tables(evaluation["metrics"])
            ]
        tables.append(latency_table(evaluation["latency"], titled(name, evaluation)))
    by_class = float_class_table(evaluations, metric)
    compared = difference_table(evaluations)
    optional = [table for table in (by_class, compared) if table is not None]
    return [*tables, side_by_side(columns_of(evaluations)), *optional]
