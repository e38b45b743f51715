"""Command line of the exporter."""

from __future__ import annotations

from pathlib import Path

import click

from exporter.config_commands import config_group
from exporter.package_commands import package_group
from exporter.quantize.commands import quantize_group
from shared.cli import (
    COUNT,
    config_option,
    data_option,
    device_option,
    force_option,
    tool_group,
    trust_option,
    workspace_option,
)

cli = tool_group("exporter", "Export a trained model to ONNX, and record what its training framework answers.")
cli.add_command(config_group)
cli.add_command(package_group)
cli.add_command(quantize_group)


@cli.command("export")
@config_option
@workspace_option
@data_option
@device_option
@force_option
def export_command(
    config: Path, overrides: tuple[str, ...], work: Path, data_root: Path | None, device: str, force: bool
) -> None:
    """Export a model: ONNX files, torch.export programs, model spec and framework reference.

    Every file is checked before it is committed: the ONNX checker, ONNX Runtime against PyTorch on a real sample at
    several sizes. --device is where the framework reference runs.

    Example: exporter export --config configs/centerpoint.yaml --work work/centerpoint
    """
    from exporter.export import export

    export(config, work, overrides, device=device, data_root=data_root, force=force)


@cli.command("trace")
@workspace_option
@click.option("--num-samples", type=COUNT, help="How many. [default: verification.num_verify_samples]")
@data_option
@force_option
@trust_option
def trace_command(work: Path, num_samples: int | None, data_root: Path | None, force: bool) -> None:
    """Record what the training framework has between its parts: the reference for `runtime swap --trace framework-cpu`.

    Runs on the CPU, with the checkpoint and training config that were exported.

    Example: exporter trace --work work/centerpoint
    """
    from exporter.trace import trace

    click.echo(trace(work, num_samples=num_samples, data_root=data_root, force=force))


@cli.command("models")
def models_command() -> None:
    """List the models that can be exported here.

    Example: exporter models
    """
    from exporter.models import available

    for name in available():
        click.echo(name)
