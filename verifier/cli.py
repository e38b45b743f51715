"""Command line of the verifier."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from shared.answer import Answer
from shared.cli import (
    COUNT,
    EXISTING_FILE,
    EXISTING_FOLDER,
    FOLDER,
    Number,
    cluster_option,
    data_option,
    force_option,
    json_option,
    junit_option,
    tool_group,
    workspace_option,
)
from shared.errors import UsageError

cli = tool_group("verifier", "Compare recorded outputs of backends, and of the training framework. Loads no model.")

_TOLERANCE_HELP = (
    "A limit: 0.05 (largest absolute difference of every raw output), heatmap=0.05 (of one), snr_db=40, cosine=0.999, "
    "heatmap.snr_db=40, results.center=0.05 (also size, yaw, velocity, corner, score, probability, unmatched, "
    "class_iou, sure_flips), metric=0.99 (against the reference's results). Repeatable. "
    "[default: by precision, see docs]"
)


def _limit_options(command: Any) -> Any:
    """Which signal to noise ratio outputs must have, see `_limit`."""
    command = click.option("--snr-db", type=Number(-1000, 1000), help="The limit [dB] itself.")(command)
    return click.option(
        "--precision",
        default="fp32",
        show_default=True,
        metavar="POLICY",
        help="Whose default signal to noise limit counts.",
    )(command)


def _limit(precision: str, snr_db: float | None, limits: Mapping[str, float]) -> float:
    """``snr_db`` where it is given, else the limit [dB] of a precision policy."""
    if precision not in limits:
        known = ", ".join(limits)
        raise UsageError(f"no limits for '{precision}'", where="--precision", hint=f"there are: {known}")
    return limits[precision] if snr_db is None else snr_db


@cli.command("verify")
@workspace_option
@click.option("--tolerance", "tolerances", multiple=True, metavar="[NAME=]VALUE", help=_TOLERANCE_HELP)
@junit_option
@force_option
@json_option
def verify_command(work: Path, tolerances: tuple[str, ...], junit: Path | None, force: bool) -> Answer:
    """Compare the runs of a workspace: the config's scenarios, and every run with the framework's own answer.

    Exit code 6 when runs disagree, a scenario can't run, or nothing could be compared.

    Example: verifier verify --work work/centerpoint
    """
    from verifier.verify import verify

    return verify(work, tolerances, force, junit)


@cli.command("check")
@workspace_option
@click.option("--tolerance", "tolerances", multiple=True, metavar="[NAME=]VALUE", help=_TOLERANCE_HELP)
@junit_option
@json_option
def check_command(work: Path, tolerances: tuple[str, ...], junit: Path | None) -> Answer:
    """Judge the stored statistics again, with other limits, without comparing again.

    Nothing is recorded; exit code 6 when a comparison is outside the limits.

    Example: verifier check --work work/centerpoint --tolerance heatmap=0.01
    """
    from verifier.verify import check

    return check(work, tolerances, junit)


@cli.command("attribute")
@workspace_option
@click.option("--run", "run_name", metavar="NAME", help="The swapped run, as in onnx-cpu. [default: each]")
@data_option
@force_option
@json_option
def attribute_command(work: Path, run_name: str | None, data_root: Path | None, force: bool) -> Answer:
    """Say which step of the pipeline loses how much of the metric, after `runtime trace` and `runtime swap`.

    Metrics are against the labels of the data set, or, where there are none, against the reference's results.

    Example: verifier attribute --work work/centerpoint --run onnx-cpu
    """
    from verifier.attribute import attribute

    return attribute(work, run_name, data_root, force)


@cli.command("bisect")
@workspace_option
@click.option("--component", metavar="NAME", help="The component. [default: each]")
@click.option(
    "--reference-work",
    type=EXISTING_FOLDER,
    help="Workspace whose ONNX files are right. [default: the same; then backends are compared]",
)
@click.option("--trace", "trace_name", metavar="NAME", help="Whose inputs to use, as in onnx-cpu. [default: any]")
@click.option("--num-samples", type=COUNT, help="How many of its samples. [default: all]")
@click.option(
    "--runner-command",
    metavar="COMMAND",
    help="What runs a window: a command with {model}, {inputs} and {outputs} in it, or one that stays and is asked "
    "line by line, as trt_builder probe --serve. [default: ONNX Runtime]",
)
@click.option("--runner-gpu", is_flag=True, help="On a cluster, each run of the command has a GPU of its own.")
@_limit_options
@cluster_option
@force_option
@json_option
def bisect_command(runner_command: str | None, precision: str, snr_db: float | None, **options: Any) -> Answer:
    """Name the ONNX nodes that are responsible when two runs disagree, after `runtime trace`.

    The reference is ONNX Runtime, node by node, without optimization.

    Example: verifier bisect --work work/new --reference-work work/centerpoint --component pts_backbone_neck_head
    """
    from verifier.bisect.recipe import bisect
    from verifier.bisect.runners import OnnxRunner, runner_of
    from verifier.tolerances import NODE_SNR_DB

    runner = OnnxRunner(optimize=True) if runner_command is None else runner_of(runner_command)
    return bisect(runner=runner, limit=_limit(precision, snr_db, NODE_SNR_DB), **options)


@cli.command("export")
@workspace_option
@click.option("--format", "_format", type=click.Choice(["polygraphy"]), required=True, help="Of the files.")
@click.option("--out", type=FOLDER, required=True, help="Folder for them.")
@click.option("--component", metavar="NAME", help="The component. [default: each]")
@click.option("--trace", "trace_name", metavar="NAME", help="Whose tensors, as in onnx-cpu. [default: any]")
@click.option("--num-samples", type=COUNT, help="How many of its samples. [default: all]")
def export_command(work: Path, _format: str, **options: Any) -> None:
    """Write what went into each component and came out of it, after `runtime trace`, for another program.

    polygraphy: COMPONENT.inputs.json for polygraphy run --load-inputs, COMPONENT.outputs.json for --load-outputs.

    Example: verifier export --work work/centerpoint --format polygraphy --out polygraphy
    """
    from verifier.polygraphy import export

    click.echo(export(work, **options))


@cli.command("compare")
@workspace_option
@click.argument("results", type=EXISTING_FILE)
@click.option("--component", metavar="NAME", help="Whose outputs they are. [default: the one with these outputs]")
@click.option("--trace", "trace_name", metavar="NAME", help="What is right, as in onnx-cpu. [default: any]")
@_limit_options
@json_option
def compare_command(results: Path, precision: str, snr_db: float | None, **options: Any) -> Answer:
    """Compare the outputs that Polygraphy saved (RESULTS, --save-outputs) with those of a trace.

    Its inputs must be those that `verifier export` wrote. Nothing is recorded; exit code 6 when an output disagrees.

    Example: verifier compare outputs.json --work work/centerpoint --precision fp16
    """
    from verifier.polygraphy import compare
    from verifier.tolerances import POLICIES

    limits = {name: limits.tensors.snr_db for name, limits in POLICIES.items()}
    return compare(results=results, limit=_limit(precision, snr_db, limits), **options)
