"""Command line of the evaluator."""

from __future__ import annotations

from pathlib import Path

import click

from shared.cli import data_option, force_option, tool_group, workspace_option

cli = tool_group("evaluator", "Metrics and latency of recorded runs. Loads no model.")


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
    help="What the intervals are drawn from.",
)
@force_option
def evaluate_command(work: Path, data_root: Path | None, gates: tuple[str, ...], resample: str, force: bool) -> None:
    """Score every finished run that the config enables against the labels of the data set, and its latency.

    Results: evaluation/<run>.json, the manifest, and tables here.

    Example: evaluator evaluate --work work/centerpoint --fail-if 'mAP drop > 0.5%'
    """
    from evaluator.evaluate import evaluate

    click.echo(evaluate(work, data_root, force, gates, resample))


@cli.command("summary")
@workspace_option
def summary_command(work: Path) -> None:
    """Show stages, verification, metrics and latency of a workspace on one screen.

    Example: evaluator summary --work work/centerpoint
    """
    from evaluator.summary import summary

    click.echo(summary(work))
