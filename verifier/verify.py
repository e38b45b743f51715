"""The recipe: which runs, compare, judge, record, and fail when anything is not as it should be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared import formats, plugins
from shared.added import added_versions
from shared.answer import Answer
from shared.errors import InputError, VerificationFailed
from shared.json_reader import read_json
from shared.junit import Case, write_junit
from shared.metrics.confusion import of_labels
from shared.onnx_graph import load, outputs_behind
from shared.several_tasks import of_part, parts_of, qualified
from shared.staleness import refuse_outdated
from shared.table import Table, number
from shared.tasks import Task, find
from shared.workspace import Workspace
from verifier.compare import compare_runs
from verifier.overrides import apply_overrides, check_output_tolerances
from verifier.scenarios import Comparison, Plan, RecordedRun, plan_comparisons, precision_of, recorded_runs
from verifier.tolerances import Check, Tolerance, checks, coarser, default_tolerance, judge, tolerance_from_json

if TYPE_CHECKING:
    from shared.config import DeployConfig
    from shared.spec import ModelSpec

STAGE = "verify"
#: Name of the one result of kind ``verification`` in the manifest.
SUMMARY = "summary"
# What puts rows of a graph into an order of scores, or leaves some of them out.
_RANKING = frozenset({"TopK", "NonMaxSuppression", "EfficientNMS_TRT"})


def verify(work: Path, overrides: Sequence[str] = (), force: bool = False, junit: Path | None = None) -> Answer:
    """Compare the runs of a workspace and record the result. Returns what to print.

    Args:
        work: the workspace.
        overrides: limits in place of others, see `verifier.overrides.apply_overrides`.
        force: although nothing changed.
        junit: file for every check and its verdict, see `shared.junit`; None: none.

    Raises:
        VerificationFailed: runs disagree, a scenario can't run, or nothing could be compared.
        InputError: runs of different models or data.
        UsageError: one of ``overrides`` is no finite number, or there is no such limit.
    """
    from shared.config import from_resolved, part

    workspace = Workspace.open(work)
    config = from_resolved(workspace.config(), str(work))
    settings = part(config, "verification", "devices")
    policy = config.tensorrt.precision_policy
    stage_config = {**settings, "mode": config.export.mode, "precision_policy": policy, "tolerance": list(overrides)}
    if not config.verification.enabled:
        reason = "verification.enabled is false"
        workspace.stage(STAGE, tool="verifier", config=stage_config).skip(reason)
        _write_cases(junit, workspace, [Case(STAGE, "verification", skipped=reason)])
        return Answer(f"verification skipped: {reason}", {"skipped": reason})

    runs = recorded_runs(workspace)
    plan = plan_comparisons(config, runs)
    stage = workspace.stage(
        STAGE,
        tool="verifier",
        config=stage_config,
        inputs=_hashes(workspace, runs),
        versions=added_versions([(plugins.TASKS, workspace.spec().task)]),
    )
    if force or not stage.up_to_date():
        spec = workspace.spec()
        task, score_threshold = find(spec.task), find_score_threshold(spec.parameters)
        outputs = _recorded_outputs(plan)
        check_output_tolerances(config.verification.output_tolerances, outputs)
        if plan.comparisons:
            # A typo is found before anything is compared. Which limits there are, no precision changes.
            apply_overrides(default_tolerance("fp32", task), overrides, outputs)
        with stage:
            results = {}
            for comparison in plan.comparisons:
                stored = compare_runs(
                    comparison.reference.run,
                    comparison.test.run,
                    score_threshold,
                    config.verification.operating_score,
                )
                stored["format"] = formats.VERIFICATION
                precision = _coarser_policy(comparison, config)
                ranked = [] if precision == "fp32" else _ranked_outputs(workspace, spec)
                default = replace(default_tolerance(precision, task), ranked=ranked)
                configured = configured_tolerance(default, comparison, config)
                stored["tolerance"] = asdict(apply_overrides(configured, overrides, outputs))
                stage.json_artifact(f"verification/{comparison.name}.json", "verification", stored)
                results[comparison.name] = _result(stored, judge_stored(stored, task))
            stage.result("verification", SUMMARY, _summary(plan, results))
    return report(workspace, (), junit)


def check(work: Path, overrides: Sequence[str], junit: Path | None = None) -> Answer:
    """Judge the stored statistics again, with other limits; nothing is compared or recorded. Returns what to print.

    Raises:
        VerificationFailed: a comparison is outside the limits.
        InputError: nothing was verified here yet, or the runs were made again since.
        UsageError: one of ``overrides`` is no finite number, or there is no such limit.
    """
    workspace = Workspace.open(work)
    refuse_outdated(workspace.manifest(), STAGE, "verification", work)
    return report(workspace, overrides, junit)


def _coarser_policy(comparison: Comparison, config: DeployConfig) -> str:
    """The coarser precision of the two runs."""
    return coarser(*(precision_of(recorded.run, config) for recorded in (comparison.reference, comparison.test)))


def configured_tolerance(default: Tolerance, comparison: Comparison, config: DeployConfig) -> Tolerance:
    """The default limits with what the config says of all comparisons and of this one's scenario."""
    settings, scenario = config.verification, comparison.scenario
    own = scenario.tolerance if scenario is not None else None
    max_abs = settings.tolerance if own is None else own
    tensors = default.tensors if max_abs is None else replace(default.tensors, max_abs=max_abs)
    return replace(default, tensors=tensors, output_max_abs=dict(settings.output_tolerances))


def _ranked_outputs(workspace: Workspace, spec: ModelSpec) -> list[str]:
    """Names of the outputs whose rows a network sorts or suppresses by score, by the graphs that are there."""
    known = workspace.manifest().artifacts
    files = [workspace.onnx(component.onnx) for component in spec.components if component.onnx in known]
    return sorted(set().union(*(outputs_behind(load(file, weights=False), _RANKING) for file in files)))


def _recorded_outputs(plan: Plan) -> list[str]:
    """Names of the raw outputs that the references of the comparisons kept."""
    references = {comparison.reference.folder: comparison.reference.run for comparison in plan.comparisons}
    names: dict[str, None] = {}
    for run in references.values():
        for index in run.header.raw_samples[:1]:
            names |= dict.fromkeys(run.raw(index))
    return list(names)


def find_score_threshold(parameters: Mapping[str, Any]) -> float | None:
    """The model's score threshold: the value called ``score_threshold`` in its parameters, at any depth."""
    for name, value in parameters.items():
        if name == "score_threshold" and isinstance(value, (int, float)):
            return float(value)
        if isinstance(value, Mapping):
            found = find_score_threshold(value)
            if found is not None:
                return found
    return None


def stored_comparisons(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """The comparisons of the last ``verify``, by name.

    Raises:
        InputError: nothing was verified here yet.
        ManifestError: a file was changed.
    """
    stage = workspace.manifest().stages.get(STAGE)
    if stage is None or stage.status != "done":
        status = "nothing was verified here yet" if stage is None else f"the last verification is '{stage.status}'"
        raise InputError(status, where=str(workspace.root), hint=f"verifier verify --work {workspace.root}")
    stored = {Path(relative).stem: read_json(workspace.artifact(relative)) for relative in stage.outputs}
    for name, comparison in stored.items():
        if comparison.get("format") != formats.VERIFICATION:
            raise InputError(
                "was written by another version of the verifier",
                where=f"{workspace.root}/verification/{name}.json",
                hint=f"compare again: verifier verify --work {workspace.root}",
            )
    return stored


def judge_stored(stored: Mapping[str, Any], task: Task[Any]) -> list[str]:
    """What is wrong with a stored comparison of results of ``task``, by the limits stored with it; none: it passed."""
    return judge(stored, tolerance_from_json(stored["tolerance"], task))


def report(workspace: Workspace, overrides: Sequence[str], junit: Path | None) -> Answer:
    """The stored comparisons as tables, when all is well; ``junit`` is written in any case.

    Raises:
        VerificationFailed: something is not; the tables are in the log then.
        InputError: nothing was verified here yet.
    """
    comparisons = stored_comparisons(workspace)
    summary = workspace.result("verification", SUMMARY, lists=("skipped", "unable"))
    task = find(workspace.spec().task)
    outputs = list(dict.fromkeys(name for stored in comparisons.values() for name in stored["outputs"]))
    made = {
        name: checks(stored, apply_overrides(tolerance_from_json(stored["tolerance"], task), overrides, outputs))
        for name, stored in comparisons.items()
    }
    _write_cases(junit, workspace, _cases(made, summary))
    verdicts = {name: [check.failure for check in made[name] if check.failure is not None] for name in made}
    text = "\n\n".join(table.text() for table in _tables(comparisons, verdicts, task))
    notes = [f"skipped (optional): {line}" for line in summary["skipped"]]
    failures = list(summary["unable"])
    failures += [f"{name}: {line}" for name, lines in verdicts.items() for line in lines]
    if not comparisons:
        failures.append("nothing was compared")
    data = {
        "passed": not failures,
        "failures": failures,
        "skipped": summary["skipped"],
        "comparisons": {
            name: {**stored, "passed": not verdicts[name], "failures": verdicts[name]}
            for name, stored in comparisons.items()
        },
    }
    if failures:
        lines = [text, *notes, *(f"FAILED {failure}" for failure in failures)]
        raise VerificationFailed(
            f"{failures[0]} ({len(failures)} in all)",
            where="verification",
            hint="the lines above say what differs where; verification/*.json holds all statistics",
            answer=Answer("\n".join(line for line in lines if line), data),
        )
    return Answer("\n".join([text, *notes, f"verification passed: {len(comparisons)} comparisons"]), data)


def _cases(made: Mapping[str, Sequence[Check]], summary: Mapping[str, Any]) -> list[Case]:
    """A case for every check of every comparison, and for every scenario that could not be compared."""
    cases = [Case("scenarios", line, skipped=f"{line}; the scenario is optional") for line in summary["skipped"]]
    cases += [Case("scenarios", line, failure=line) for line in summary["unable"]]
    if not made:
        cases.append(Case("scenarios", "comparisons", failure="nothing was compared"))
    for name, of_comparison in made.items():
        cases += [Case(name.replace("__", " -> "), check.name, check.failure) for check in of_comparison]
    return cases


def _write_cases(junit: Path | None, workspace: Workspace, cases: Sequence[Case]) -> None:
    if junit is not None:
        write_junit(junit, "verifier verify", cases, workspace.manifest().stages[STAGE])


def _hashes(workspace: Workspace, runs: Sequence[RecordedRun]) -> dict[str, str]:
    """Hashes of all files of the runs, by path."""
    manifest = workspace.manifest()
    return {
        relative: manifest.artifacts[relative].sha256
        for recorded in runs
        for relative in manifest.stages[recorded.stage].outputs
        if relative.startswith(f"{recorded.folder}/")
    }


def _summary(plan: Plan, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the manifest records of the verification: the verdict, what was skipped or unable to run, and why."""
    passed = bool(results) and not plan.failures and all(result["passed"] for result in results.values())
    return {
        "format": formats.VERIFICATION,
        "passed": passed,
        "skipped": plan.skipped,
        "unable": plan.failures,
        "comparisons": dict(results),
    }


def _result(stored: Mapping[str, Any], failures: list[str]) -> dict[str, Any]:
    """What the manifest records of a comparison."""
    keep = ("max_abs", "mean_abs", "cosine", "snr_db")
    return {
        "passed": not failures,
        "failures": failures,
        "samples": len(stored["samples"]),
        "outputs": {name: {key: values[key] for key in keep} for name, values in stored["outputs"].items()},
        "results": _result_summary(list(parts_of(stored["results"]).items())),
        "agreement": stored["agreement"],
    }


def _result_summary(parts: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Of several tasks together."""

    def total(key: str) -> int:
        return sum(results[key] for _, results in parts)

    errors: dict[str, Any] = {}
    for part, results in parts:
        errors |= qualified(part, results["errors"])
    return {
        "kind": ", ".join(results["kind"] for _, results in parts),
        "samples": parts[0][1]["samples"],
        "matched": total("matched"),
        "tied": total("tied"),
        "below_ties": total("below_ties"),
        "reference_unmatched": total("num_reference_unmatched"),
        "test_unmatched": total("num_test_unmatched"),
        "label_flips": total("label_flips"),
        "max_errors": {name: values["max"] for name, values in errors.items()},
    }


def _tables(
    comparisons: Mapping[str, Mapping[str, Any]], verdicts: Mapping[str, list[str]], task: Task[Any]
) -> list[Table]:
    return [
        table
        for name, stored in comparisons.items()
        for table in (_output_table(stored, verdicts[name]), *_result_tables(stored, task))
    ]


def _output_table(stored: Mapping[str, Any], failures: list[str]) -> Table:
    rows = []
    for output, values in stored["outputs"].items():
        quantiles = values["quantiles_abs"]
        identical = values["compared"] and values["noise_energy"] == 0.0
        rows.append(
            [
                output,
                _short(values["max_abs"]),
                _short(values["mean_abs"]),
                _short(quantiles.get("0.99")),
                _short(values["max_relative"]),
                number(values["worst_cosine"], 6),
                "exact" if identical else number(values["snr_db"], 1),
                str(values["test_nan"] + values["test_inf"]),
            ]
        )
    reference, test = stored["reference"]["run"], stored["test"]["run"]
    status = "FAILED" if failures else "passed"
    return Table(
        f"{reference} -> {test}: {status}, raw outputs of {len(stored['samples'])} samples",
        ["output", "max abs", "mean abs", "p99 abs", "max rel", "cosine", "SNR dB", "NaN/Inf"],
        rows,
    )


def _result_tables(stored: Mapping[str, Any], task: Task[Any]) -> list[Table]:
    """A table for each task of the results."""
    agreement: Mapping[str, float] = stored["agreement"]
    return [
        _result_table(results, of_part(part, agreement), find(part) if part else task)
        for part, results in parts_of(stored["results"]).items()
    ]


def _result_table(results: Mapping[str, Any], agreement: Mapping[str, float], task: Task[Any]) -> Table:
    operating = results["operating"]
    rows = []
    for name, values in results["errors"].items():
        kept = operating["errors"].get(name, {"mean": None, "quantiles": {"0.9": None}})
        of_all = (values["max"], values["mean"], values["quantiles"]["0.99"])
        rows.append([_with_unit(name, task), *map(_short, (*of_all, kept["mean"], kept["quantiles"]["0.9"]))])
    title = (
        f"  {results['kind']} of {results['samples']} samples: {results['matched']} matched, "
        f"{results['num_reference_unmatched']} and {results['num_test_unmatched']} unmatched, "
        f"{results['label_flips']} label flips"
    )
    if "by_label" in results:
        title += of_labels(results)
    elif tied := results.get("tied"):
        title += (
            f", {tied} tied (equal scores: each run kept others of the same) and {results['below_ties']} below them"
        )
    if agreement:
        title += f"; against the reference {', '.join(f'{name} {value:.4f}' for name, value in agreement.items())}"
    kept = "kept" if operating["score"] is None else f"score >= {operating['score']:g}"
    return Table(title, ["  error", "max", "mean", "p99", f"{kept}: mean", "p90"], rows)


def _with_unit(name: str, task: Task[Any]) -> str:
    unit = task.errors[name].unit
    return f"  {name} [{unit}]" if unit else f"  {name}"


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}"
