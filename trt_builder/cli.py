"""The command line of trt_builder."""

from __future__ import annotations

from pathlib import Path

import click

from shared.cli import force_option, tool_group, workspace_option

cli = tool_group("trt_builder", "ONNX to TensorRT: build, inspect and check engines.")

TARGETS = ("auto", "tensorrt", "rtx")


@cli.command()
@workspace_option
@force_option
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    default="auto",
    show_default=True,
    help="What to build for. auto: TensorRT where it and a GPU are, else TensorRT for RTX where that is installed.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of the workspace's config, for example --set tensorrt.precision_policy=fp16. Repeatable.",
)
@click.option(
    "--if-available",
    is_flag=True,
    help="Where TensorRT or a GPU is missing, record the stage as skipped, with the reason, and end well.",
)
@click.option("--explain", is_flag=True, help="Build nothing; say what would be built, and why.")
def build(work: Path, force: bool, target: str, overrides: tuple[str, ...], if_available: bool, explain: bool) -> None:
    """Build the engines of every component in the workspace.

    Example: trt_builder build --work work/centerpoint --set tensorrt.precision_policy=fp16
    """
    from trt_builder.build import build_all

    build_all(work, target=target, overrides=overrides, if_available=if_available, force=force, explain=explain)
