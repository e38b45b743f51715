"""``exporter quantize``: INT8."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click

from shared.answer import Answer
from shared.cli import (
    COUNT,
    EXISTING_FILE,
    FILE,
    SEED,
    Number,
    cluster_option,
    config_option,
    data_option,
    device_option,
    force_option,
    json_option,
    workspace_option,
)
from shared.errors import ConfigError, ExportError, InputError

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group(name="quantize")
def quantize_group() -> None:
    """Quantize a model to INT8, before it is exported."""


_skip_option = click.option(
    "--skip",
    "--skip-layers",
    "skip",
    multiple=True,
    metavar="NAME|REGEX",
    help="Leave these layers in floating point, too: a layer, a block, or a regular expression. Repeatable.",
)
_output_option = click.option("--output", type=FILE, help="Copy the checkpoint to this file.")


@quantize_group.command("ptq")
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
@_skip_option
@click.option(
    "--skip-from",
    type=FILE,
    help="Take quantization.sensitive_layers from this file of `sensitivity` or `auto`.",
)
@click.option(
    "--load-cache",
    type=FILE,
    help="Take the ranges from this calibration cache instead of calibrating.",
)
@_output_option
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

    sensitive_layers = None if skip_from is None else _layers_in(skip_from)
    click.echo(ptq(config, work, overrides, sensitive_layers=sensitive_layers, **options))


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


@quantize_group.command("qat")
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
@_skip_option
@device_option
@click.option(
    "--trained",
    type=FILE,
    help="Take over this checkpoint of QATHook instead of training.",
)
@_output_option
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


def _search_options(command: Command) -> Command:
    """What both commands take."""
    for option in (
        config_option,
        workspace_option,
        data_option,
        click.option(
            "--num-samples", type=COUNT, default=32, show_default=True,
            help="Frames of the config's data set that the metric is measured on, spread evenly.",
        ),
        click.option(
            "--block-size", type=COUNT, default=6, show_default=True,
            help="A block is the largest part of the model with at most so many layers.",
        ),
        click.option(
            "--gpu", default="orin", show_default=True, help="Latencies are estimated for: h200, a100, l4, orin."
        ),
        click.option(
            "--profile", "profiles", multiple=True, type=EXISTING_FILE,
            help="Measured times of layers, from `trt_builder inspect ENGINE --json`. Repeatable.",
        ),
        device_option,
        cluster_option,
        force_option,
    ):  # fmt: skip
        command = option(command)
    return command


@quantize_group.command("sensitivity")
@_search_options
@click.option(
    "--threshold", type=Number(-1000, 1000), default=0.1, show_default=True,
    help="A layer that loses more points alone in INT8 goes to the skip list.",
)  # fmt: skip
@click.option(
    "--min-snr",
    "min_snr_db",
    type=Number(-1000, 1000),
    help="So does one that leaves an output a lower signal to noise ratio [dB].",
)
@click.option("--output", type=FILE, help="Also write the ranking here, as CSV.")
@json_option
def sensitivity_command(threshold: float, min_snr_db: float | None, output: Path | None, **request: Any) -> Answer:
    """Rank layers and blocks by what they lose alone in INT8, and write the list of those to skip.

    Measures the task metric and the signal to noise ratio of every output, on labeled frames; then combined choices,
    against a latency that is only estimated. Interrupted, the same command resumes. Results: quantized/sensitivity in
    the workspace (table, CSV, picture, skip.yaml for `exporter quantize ptq --skip-from`).

    Example: exporter quantize sensitivity --config configs/centerpoint_int8.yaml --work work/centerpoint-int8
    """
    from exporter.quantize.search import Request, sensitivity

    return sensitivity(Request(**request), threshold, min_snr_db, output)


@quantize_group.command("auto")
@_search_options
@click.option(
    "--max-drop", type=Number(-1000, 1000), required=True, help="Points of the metric that may be lost against float."
)
@click.option(
    "--skip", multiple=True, metavar="REGEX", help="Layers or blocks that stay in floating point anyway. Repeatable."
)
@click.option(
    "--transposed", is_flag=True, help="Transposed convolutions may be INT8 too; TensorRT 8.6 can't build them so."
)
@json_option
def auto_command(max_drop: float, skip: tuple[str, ...], transposed: bool, **request: Any) -> Answer:
    """Find the INT8 blocks that lose at most --max-drop points at the least estimated latency.

    Takes over what `exporter quantize sensitivity` measured with the same config and frames. Exit code 6 when not one
    block can be INT8. Interrupted, the same command resumes.

    Example: exporter quantize auto --config configs/centerpoint_int8.yaml --work work/centerpoint-int8 --max-drop 0.3
    """
    from exporter.quantize.search import Request, auto_search

    return auto_search(Request(**request), max_drop, skip, transposed)


@quantize_group.command("lint")
@click.argument("file", type=EXISTING_FILE)
@click.option(
    "--exclude",
    "excluded",
    multiple=True,
    metavar="REGEX",
    help="Names of nodes or layers that must not be quantized. Repeatable.",
)
@json_option
def lint_command(file: Path, excluded: tuple[str, ...]) -> Answer:
    """Find misplaced Q/DQ nodes in an ONNX file, whoever made it. The export runs this on every quantized graph.

    One line a finding: the node, and what TensorRT would make of it. Exit code 5 when there are any. The conversions
    between INT8 and floating point are counted, too, with a line where they are likely to cost more than INT8 saves.
    Another line is of the sums that TensorRT 8.6.0 has no INT8 kernel for.

    Example: exporter quantize lint work/centerpoint-int8/onnx/pts_backbone_neck_head.onnx
    """
    from shared import onnx_graph
    from shared.int8_passes import find_passes
    from shared.qdq_lint import float_sums, lint, quantized_nodes, sum_advice

    model = onnx_graph.load(file)
    quantized, others = quantized_nodes(model)
    findings = lint(model, excluded)
    if not quantized and not findings:
        raise InputError("has no quantized node", where=str(file), hint="export it with quantization.enabled: true")
    passes, sums = find_passes(model), float_sums(model)
    lines = [
        *map(str, findings),
        f"{len(quantized)} of {len(quantized) + len(others)} matrix nodes are quantized, {len(findings)} findings",
        f"{len(passes.passes)} conversions between INT8 and floating point, {passes.share:.0%} of the bytes saved",
    ]
    if sums:
        lines.append(f"TensorRT 8.6.0 has no kernel for {len(sums)} sums: {sum_advice(sums[0])}")
    if (advice := passes.advice()) is not None:
        lines.append(advice)
    data = {
        "findings": [asdict(finding) for finding in findings],
        "quantized": quantized,
        "not_quantized": others,
        "conversions": len(passes.passes),
        "bytes_moved": passes.moved,
        "bytes_saved": passes.saved,
        "float_sums": sums,
    }
    answer = Answer("\n".join(lines), data)
    if findings:
        raise ExportError(f"{len(findings)} Q/DQ nodes are misplaced", where=file.name, answer=answer)
    return answer
