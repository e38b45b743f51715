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
    "--if-available",
    is_flag=True,
    help="Where TensorRT or a GPU is missing, record the stage as skipped, with the reason, and end well.",
)
def build(work: Path, force: bool, target: str, if_available: bool) -> None:
    """Build the engines of every component in the workspace.

    Example: trt_builder build --work work/centerpoint
    """
    from trt_builder.build import build_all

    build_all(work, target=target, if_available=if_available, force=force)
