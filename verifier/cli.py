"""Command line of the verifier."""

from __future__ import annotations

from pathlib import Path

import click

from shared.cli import data_option, force_option, tool_group, workspace_option

cli = tool_group("verifier", "Compare recorded outputs of backends, and of the training framework. Loads no model.")

_TOLERANCE_HELP = (
    "A limit: 0.05 (largest absolute difference of every raw output), heatmap=0.05 (of one), snr_db=40, cosine=0.999, "
    "results.center=0.05 (also size, yaw, velocity, corner, score, probability, unmatched). Repeatable. "
    "[default: by precision, see docs]"
)


@cli.command("verify")
@workspace_option
@click.option("--tolerance", "tolerances", multiple=True, metavar="[NAME=]VALUE", help=_TOLERANCE_HELP)
@force_option
def verify_command(work: Path, tolerances: tuple[str, ...], force: bool) -> None:
    """Compare the runs of a workspace: the config's scenarios, and every run with the framework's own answer.

    Exit code 6 when runs disagree, a scenario can't run, or nothing could be compared.

    Example: verifier verify --work work/centerpoint
    """
    from verifier.verify import verify

    click.echo(verify(work, tolerances, force))


@cli.command("check")
@workspace_option
@click.option("--tolerance", "tolerances", multiple=True, metavar="[NAME=]VALUE", help=_TOLERANCE_HELP)
def check_command(work: Path, tolerances: tuple[str, ...]) -> None:
    """Judge the stored statistics again, with other limits, without comparing again.

    Nothing is recorded; exit code 6 when a comparison is outside the limits.

    Example: verifier check --work work/centerpoint --tolerance heatmap=0.01
    """
    from verifier.verify import check

    click.echo(check(work, tolerances))


@cli.command("attribute")
@workspace_option
@click.option("--run", "run_name", metavar="NAME", help="The swapped run, as in onnx-cpu. [default: the only one]")
@data_option
@force_option
def attribute_command(work: Path, run_name: str | None, data_root: Path | None, force: bool) -> None:
    """Say which step of the pipeline loses how much of the metric, after `runtime trace` and `runtime swap`.

    Metrics are against the labels of the data set, or, where there are none, against the reference's results.

    Example: verifier attribute --work work/centerpoint --run onnx-cpu
    """
    from verifier.attribute import attribute

    click.echo(attribute(work, run_name, data_root, force))
