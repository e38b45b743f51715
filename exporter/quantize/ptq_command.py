"""``exporter quantize ptq``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from exporter.quantize.options import output_option, skip_option
from shared.cli import COUNT, config_option, data_option, device_option, force_option, workspace_option
from shared.errors import ConfigError


@click.command("ptq")
@config_option
@workspace_option
@data_option
@click.option(
    "--num-samples",
    "--calibrate-batches",
    "num_samples",
    type=COUNT,
    help="Samples to calibrate on. [default: quantization.calibration.num_batches]",
)
@click.option(
    "--method",
    type=click.Choice(["max", "entropy", "mse", "percentile"]),
    help="How activation ranges are chosen. [default: as quantization.calibration says]",
)
@skip_option
@click.option(
    "--skip-from",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Take quantization.sensitive_layers from this file of `sensitivity` or `auto`.",
)
@click.option(
    "--load-cache",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Take the ranges from this calibration cache instead of calibrating.",
)
@output_option
@device_option
@force_option
def ptq_command(config: Path, overrides: tuple[str, ...], work: Path, skip_from: Path | None, **options: Any) -> None:
    """Quantize a trained model to INT8 by calibration, without training.

    Folds batch norms into the layers before them, finds ranges on samples of quantization.calibration.data, and writes
    quantized/ptq.pth, its calibration cache and its provenance to the workspace. `exporter export` takes the checkpoint
    with quantization.enabled: true.

    Example: exporter quantize ptq --config configs/centerpoint_int8.yaml --work work/centerpoint-int8
    """
    from exporter.quantize.ptq import ptq

    if skip_from is not None:
        overrides = (*overrides, f"quantization.sensitive_layers={json.dumps(_layers_in(skip_from))}")
    click.echo(ptq(config, work, overrides, **options))


def _layers_in(path: Path) -> list[str]:
    """The key ``sensitive_layers`` of a YAML file.

    Raises:
        ConfigError: no such file or key.
    """
    from shared.config.yaml_tree import read_yaml

    layers = read_yaml(path).value.get("sensitive_layers")
    if not isinstance(layers, list) or not all(isinstance(name, str) for name in layers):
        raise ConfigError("has no list sensitive_layers", where=str(path))
    return layers
