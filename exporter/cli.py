"""Command line of the exporter."""

from __future__ import annotations

from pathlib import Path

import click

from exporter.config_commands import config_group
from exporter.package_commands import package_group
from exporter.quantize.commands import quantize_group
from shared.answer import Answer
from shared.cli import (
    COUNT,
    EXISTING_FILE,
    config_option,
    data_option,
    device_option,
    force_option,
    json_option,
    tool_group,
    trust_option,
    workspace_option,
)
from shared.openmp import wait_briefly

# Commands import PyTorch, which reads the environment then.
wait_briefly()

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


@cli.command("inspect")
@click.argument("paths", nargs=-1, required=True, metavar="MODEL_CONFIG…", type=click.Path(path_type=Path, exists=True))
@click.option("--checkpoint", type=EXISTING_FILE, help="Weights that should fit the model.")
@click.option("--summary", is_flag=True, help="A line per file and counts, for any number of files and folders.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="A key of the deploy config, for example --set model.options.nms_type=circle. Repeatable.",
)
@json_option
def inspect_command(
    paths: tuple[Path, ...], checkpoint: Path | None, summary: bool, overrides: tuple[str, ...]
) -> Answer:
    """Say how the model of a training config would be deployed: components, tensors, parameters, what is left out.

    Needs no data and writes nothing. As in an export, the training config runs: it is a Python program.

    Example: exporter inspect projects/CenterPoint/configs/t4dataset/Centerpoint/second_secfpn_4xb16_121m_base_amp.py
    """
    from exporter.inspection import inspect
    from exporter.inspection_summary import summarize, summary_json, summary_text
    from shared.errors import UsageError

    if summary:
        if checkpoint is not None:
            raise UsageError("--checkpoint is for one model", hint="leave out --summary")
        found = list(summarize(paths, overrides))
        return Answer(summary_text(found), summary_json(found))
    if len(paths) > 1 or paths[0].is_dir():
        raise UsageError("one file is inspected in full", hint="for several files, or folders, say --summary")
    inspection = inspect(paths[0], overrides, checkpoint)
    return Answer("\n".join(inspection.lines()), inspection.to_json())


@cli.command("models")
def models_command() -> None:
    """List the models that can be exported here.

    Example: exporter models
    """
    from exporter.models import available

    for name in available():
        click.echo(name)
