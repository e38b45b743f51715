"""Command line of the evaluator."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from shared.answer import Answer
from shared.cli import (
    FILE,
    FOLDER,
    PLACE,
    data_option,
    force_option,
    json_option,
    junit_option,
    tool_group,
    workspace_option,
)
from shared.errors import GateFailed

cli = tool_group("evaluator", "Metrics and latency of recorded runs. Loads no model.")


def _t4_options(command: Any) -> Any:
    """How the T4 metric of 3D boxes is computed."""
    options = (
        click.option(
            "--compat",
            type=click.Choice(["none", "awml"]),
            help="Of the T4 metric: awml repeats the mistakes of perception_eval and of AWML's calls of it "
            "(evaluation.t4 in docs/configuration.md).",
        ),
        click.option(
            "--label-policy",
            type=click.Choice(["default", "allow_any"]),
            help="Of the T4 metric: which classes may match, one and the same or any.",
        ),
        click.option(
            "--min-points",
            metavar="NUMBER",
            help="Of the T4 metric: fewest lidar points of ground truth, 5 or car=5,pedestrian=1.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@cli.command("evaluate")
@workspace_option
@data_option
@click.option(
    "--fail-if",
    "gates",
    multiple=True,
    metavar="CONDITION",
    help="A condition under which a run fails, with exit code 6: 'mAP < 0.6', 'mAP drop > 0.5%' (against the PyTorch "
    "run), 'latency p99 > 100', 'mAP drop high > 1%' (bound of the interval). Repeatable.",
)
@click.option(
    "--resample",
    type=click.Choice(["frames", "scenes"]),
    default="frames",
    show_default=True,
    help="Unit of resampling for the intervals.",
)
@click.option(
    "--float",
    "float_work",
    type=FOLDER,
    metavar="WORKSPACE",
    help="Evaluated workspace of the float model that this INT8 one was made from; its columns stand beside.",
)
@click.option(
    "--mlflow",
    "mlflow_uri",
    is_flag=False,
    flag_value="",
    metavar="[URI]",
    help="Also log the evaluation to MLflow, see `evaluator log-mlflow`.",
)
@_t4_options
@junit_option
@force_option
@json_option
def evaluate_command(
    work: Path,
    data_root: Path | None,
    gates: tuple[str, ...],
    resample: str,
    float_work: Path | None,
    mlflow_uri: str | None,
    junit: Path | None,
    force: bool,
    **t4: str | None,
) -> Answer:
    """Score every finished run that the config enables against the labels of the data set, and its latency.

    Results: evaluation/<run>.json, the manifest, and tables here.

    Example: evaluator evaluate --work work/centerpoint --fail-if 'mAP drop > 0.5%'
    """
    from evaluator.evaluate import evaluate

    def logged(answer: Answer) -> Answer:
        if mlflow_uri is None:
            return answer
        from evaluator.mlflow_log import log_evaluation

        entry = log_evaluation(work, mlflow_uri)
        return Answer("\n".join(filter(None, [answer, entry.text()])), {**answer.data, "mlflow": asdict(entry)})

    try:
        answer = evaluate(work, data_root, force, gates, resample, float_work, t4, junit)
    except GateFailed as failed:
        failed.answer = None if failed.answer is None else logged(failed.answer)
        raise
    return logged(answer)


@cli.command("score")
@click.option("--task", metavar="TASK", required=True, help="What the files hold, as below.")
@click.option(
    "--metric",
    metavar="METRIC",
    help="Of 3D boxes. nuscenes: AP, errors, NDS as nuscenes-devkit; t4: AP, APH, best F1 as perception_eval. "
    "[default: nuscenes]",
)
@click.option(
    "--ground-truth",
    "truth",
    type=PLACE,
    help="Ground truth: in the shape of a nuScenes submission; COCO annotations; CSV of sample,label; "
    "a folder of label files, or one.",
)
@click.option(
    "--predictions",
    type=PLACE,
    required=True,
    help="Predictions: a nuScenes submission; COCO results; CSV of sample,score_<class>,... with or without label; "
    "a folder of label files, or one.",
)
@click.option(
    "--classes",
    default="",
    help="Class names, separated by commas; 3D boxes and labels need them, labels with the ids in their files: "
    "road=40,car=10,car=252,-=0, where - is not judged. [default: all of the file; ids: 0, 1, ...]",
)
@click.option(
    "--class-range",
    help="Of 3D boxes. Range in meters: 50, or car=50,pedestrian=40. [default: 121]",
)
@_t4_options
@click.option("--output", type=FILE, help="JSON file to write.")
@json_option
def score_command(
    task: str,
    metric: str | None,
    truth: Path | None,
    predictions: Path,
    classes: str,
    class_range: str | None,
    output: Path | None,
    **t4: str | None,
) -> Answer:
    """Score results of another program with the same metrics.

    detection3d: JSON, {"results": {sample_token: [{translation, size (w, l, h), rotation (w, x, y, z), velocity,
    detection_name, detection_score}]}}, in the ego frame, or with ego_translation. detection2d: COCO's annotations and
    results. classification: CSV of sample,label,score_<class>,...; label is the true class. segmentation3d: .label
    files (SemanticKITTI) or .bin files (nuScenes, T4); segmentation2d: .png files of ids; named alike in both folders.

    Example: evaluator score --task detection3d --ground-truth truth.json --predictions node.json --classes car,truck
    """
    from evaluator.score import Results, score_files

    names = [name.strip() for name in classes.split(",")] if classes else []
    given = {name: value for name, value in t4.items() if value is not None}
    return score_files(task, Results(predictions, truth, names, metric, class_range, given), output)


@cli.command("summary")
@workspace_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown"]),
    default="text",
    show_default=True,
    help="markdown: for the page of a CI job or a comment on a change.",
)
@json_option
def summary_command(work: Path, form: str) -> Answer:
    """Show stages, verification, metrics, latency and gates of a workspace on one screen.

    Example: evaluator summary --work work/centerpoint
    """
    from evaluator.summary import summary

    return summary(work, markdown=form == "markdown")


@cli.command("compare")
@click.argument("subjects", nargs=-1, metavar="[SUBJECT]...")
@click.option(
    "--work",
    type=FOLDER,
    envvar="WORK",
    help="The workspace of subjects that name none; if no subject is given, its runs are compared.",
)
@click.option("--output", type=FILE, help="JSON file to write.")
@json_option
def compare_command(subjects: tuple[str, ...], work: Path | None, output: Path | None) -> Answer:
    """Show evaluated runs, workspaces and versions side by side, and whether they differ.

    A SUBJECT is [WORKSPACE][@VERSION][:RUN]; without a run, it means every evaluated one. The others are compared with
    the first. Where the frames are the same, differences are paired, frame by frame.

    Example: evaluator compare --work work/centerpoint @v1:onnx-cpu :onnx-cpu
    """
    from evaluator.compare import compare_subjects

    return compare_subjects(subjects, work, output)


@cli.command("history")
@workspace_option
@click.option(
    "--metric", "metrics", multiple=True, help="A headline metric to show. Repeatable. [default: the first 3]"
)
@click.option("--output", type=FILE, help="JSON file to write.")
@click.option("--chart", type=FILE, metavar="FILE.svg", help="Also draw it: metrics and latency over the versions.")
@json_option
def history_command(work: Path, metrics: tuple[str, ...], output: Path | None, chart: Path | None) -> Answer:
    """Show the headline metrics and latency of a workspace over its versions, baselines marked.

    Example: evaluator history --work work/centerpoint --metric mAP --metric NDS
    """
    from evaluator.history import history

    answer = history(work, metrics, output)
    if chart is not None:
        from evaluator.report.trend import draw

        draw(work, metrics, chart)
    return answer


@cli.group("baseline")
def baseline_group() -> None:
    """Keep what is measured of a model, to compare later states with: `evaluator regress`."""


@baseline_group.command("set")
@workspace_option
@click.argument("name")
@click.option("--note", default="", help="A note on it.")
@click.option("--move", is_flag=True, help="Replace an earlier version of that name.")
@click.option("--export", "file", type=FILE, metavar="FILE", help="Also write it to a file, for git.")
def baseline_set_command(work: Path, name: str, note: str, move: bool, file: Path | None) -> None:
    """Keep what is measured in the workspace now as a baseline: a version, as `manifest tag` makes it, that is marked.

    Example: evaluator baseline set --work work/centerpoint v1 --export baselines/centerpoint.json
    """
    from evaluator.baseline import set_baseline

    click.echo(set_baseline(work, name, note, move=move, file=file))


@baseline_group.command("list")
@json_option
@workspace_option
def baseline_list_command(work: Path) -> Answer:
    """List the baselines of a workspace.

    Example: evaluator baseline list --work work/centerpoint
    """
    from evaluator.baseline import list_baselines

    return list_baselines(work)


@baseline_group.command("show")
@json_option
@workspace_option
@click.argument("name")
def baseline_show_command(work: Path, name: str) -> Answer:
    """Show what a baseline holds.

    Example: evaluator baseline show --work work/centerpoint v1
    """
    from evaluator.baseline import show_baseline

    return show_baseline(work, name)


@baseline_group.command("remove")
@workspace_option
@click.argument("name")
def baseline_remove_command(work: Path, name: str) -> None:
    """Delete a baseline, with the files that no other version has.

    Example: evaluator baseline remove --work work/centerpoint v1
    """
    from evaluator.baseline import remove_baseline

    click.echo(remove_baseline(work, name))


@baseline_group.command("export")
@workspace_option
@click.argument("name")
@click.argument("file", type=FILE)
def baseline_export_command(work: Path, name: str, file: Path) -> None:
    """Write a baseline, or any version, to a JSON file that lives in git (docs/measured.schema.json).

    Example: evaluator baseline export --work work/centerpoint v1 baselines/centerpoint.json
    """
    from evaluator.baseline import export

    click.echo(export(work, name, file))


@cli.command("regress")
@json_option
@click.argument("file", type=FILE, required=False, metavar="[FILE]")
@click.option("--work", type=FOLDER, envvar="WORK", help="The workspace to compare; if not given, FILE is compared.")
@click.option(
    "--baseline",
    metavar="NAME|FILE",
    help="A version of the workspace, or a file of `evaluator baseline export` or the benchmark suite. "
    "[default: the last baseline of the workspace]",
)
@junit_option
def regress_command(file: Path | None, work: Path | None, baseline: str | None, junit: Path | None) -> Answer:
    """Compare what is measured with a baseline, line by line: better, worse, no difference, not comparable.

    Metrics, latency by stage, engine sizes, build times, memory, achieved precision and verification. Ends with exit
    code 6 on what `gates` of the config call a regression.

    Example: evaluator regress --work work/centerpoint --baseline baselines/centerpoint.json
    """
    from evaluator.regress import regress

    return regress(work, file, baseline, junit)


@cli.command("pareto")
@workspace_option
@click.option(
    "--reference",
    metavar="KEY",
    help="The choice that the others are compared with. [default: the most precise one]",
)
@json_option
def pareto_command(work: Path, reference: str | None) -> Answer:
    """Show latency against metric of the choices of precisions that `trt_builder sweep` or `tune` measured.

    Drops and their intervals are of the same frames. A star marks the choices that no other beats in both. Results:
    choices/pareto.json, .csv and .svg in the workspace, and a section of the report.

    Example: evaluator pareto --work work/centerpoint-int8
    """
    from evaluator.pareto import pareto

    return pareto(work, reference)


@cli.command("report")
@workspace_option
@data_option
@click.option(
    "--rerun",
    type=FILE,
    metavar="FILE.rrd",
    help="Also write points and boxes for the Rerun viewer (pip install 'awml-deploy[rerun]').",
)
@force_option
def report_command(work: Path, data_root: Path | None, rerun: Path | None, force: bool) -> None:
    """Write everything that is known about the model as one HTML file that opens offline: report/index.html.

    Pictures of frames need the data set; without it, the report says so and leaves them out.

    Example: evaluator report --work work/centerpoint
    """
    from evaluator.report.report import report

    click.echo(report(work, data_root, force, rerun))


@cli.command("log-mlflow")
@workspace_option
@click.option(
    "--uri", default="", help="Tracking server. [default: MLFLOW_TRACKING_URI, or mlflow.db beside the workspace]"
)
@click.option("--experiment", help="Name of the experiment. [default: that of the model]")
@click.option("--model-name", help="Name to register the model under. [default: that of the model]")
def log_mlflow_command(work: Path, uri: str, experiment: str | None, model_name: str | None) -> None:
    """Log the last evaluation to MLflow: parameters, metrics, artifacts, and a version of the model.

    Needs the extra mlflow (make setup-mlflow). An evaluation that was logged before is not logged again.

    Example: evaluator log-mlflow --work work/centerpoint --uri http://localhost:5000
    """
    from evaluator.mlflow_log import log_evaluation

    click.echo(log_evaluation(work, uri, experiment, model_name).text())
