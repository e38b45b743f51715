"""``exporter quantize qat``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from exporter.quantize.options import output_option, skip_option
from shared.cli import COUNT, SEED, Number, config_option, data_option, device_option, force_option, workspace_option


@click.command("qat")
@config_option
@workspace_option
@data_option
@click.option("--epochs", type=COUNT, default=10, show_default=True, help="How often to go through it.")
@click.option("--steps", type=COUNT, help="Steps of the optimizer, instead of epochs.")
@click.option(
    "--lr",
    "learning_rate",
    type=Number(0, 1e6, min_open=True),
    default=1e-5,
    show_default=True,
    help="The greatest learning rate; it rises over the first 30 % of the steps, and falls to nothing.",
)
@click.option("--batch-size", type=COUNT, default=4, show_default=True, help="Samples a step.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of order and augmentation.")
@skip_option
@device_option
@click.option(
    "--trained",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Take over this checkpoint of QATHook instead of training.",
)
@output_option
@force_option
def qat_command(
    config: Path,
    overrides: tuple[str, ...],
    work: Path,
    trained: Path | None,
    output: Path | None,
    force: bool,
    **options: Any,
) -> None:
    """Quantize a trained model to INT8 and fine-tune it: where calibration alone loses too much.

    Calibrates and trains on the labeled samples of quantization.calibration.data, with the loss that the model was
    trained with, and writes quantized/qat.pth to the workspace. A run that was killed resumes where it was. `exporter
    export` takes the checkpoint with quantization.enabled: true and quantization.mode: qat.

    Example: exporter quantize qat --config configs/centerpoint_int8.yaml --work work/centerpoint-int8 --epochs 5
    """
    from exporter.quantize import qat

    if trained is not None:
        click.echo(qat.take_over(config, work, overrides, trained, output=output, force=force))
    else:
        click.echo(qat.qat(config, work, overrides, output=output, force=force, **options))
