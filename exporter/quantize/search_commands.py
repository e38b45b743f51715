"""``exporter quantize sensitivity`` and ``exporter quantize auto``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from shared.cli import COUNT, Number, config_option, data_option, device_option, force_option, workspace_option

Command = TypeVar("Command", bound=Callable[..., Any])


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
            "--profile", "profiles", multiple=True, type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="Measured times of layers, from `trt_builder inspect ENGINE --json`. Repeatable.",
        ),
        device_option,
        force_option,
    ):  # fmt: skip
        command = option(command)
    return command


@click.command("sensitivity")
@_search_options
@click.option(
    "--threshold", type=Number(-1000, 1000), default=0.1, show_default=True,
    help="A layer that loses more points alone in INT8 goes to the skip list.",
)  # fmt: skip
@click.option(
    "--min-snr", type=Number(-1000, 1000), help="So does one that leaves an output a lower signal to noise ratio [dB]."
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Also write the ranking here, as CSV.")
def sensitivity_command(
    config: Path, overrides: tuple[str, ...], work: Path, data_root: Path | None, profiles: tuple[Path, ...],
    min_snr: float | None, **options: Any,
) -> None:  # fmt: skip
    """Rank layers and blocks by what they lose alone in INT8, and write the list of those to skip.

    Measures the task metric and the signal to noise ratio of every output, on labeled frames; then combined choices,
    against a latency that is only estimated. Interrupted, the same command resumes. Results: quantized/sensitivity in
    the workspace (table, CSV, picture, skip.yaml for `exporter quantize ptq --skip-from`).

    Example: exporter quantize sensitivity --config configs/centerpoint_int8.yaml --work work/centerpoint-int8
    """
    from exporter.quantize.search import sensitivity

    click.echo(
        sensitivity(config, work, overrides, data_root=data_root, profiles=profiles, min_snr_db=min_snr, **options)
    )


@click.command("auto")
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
def auto_command(
    config: Path, overrides: tuple[str, ...], work: Path, data_root: Path | None, profiles: tuple[Path, ...],
    **options: Any,
) -> None:  # fmt: skip
    """Find the INT8 blocks that lose at most --max-drop points at the least estimated latency.

    Takes over what `exporter quantize sensitivity` measured with the same config and frames. Exit code 6 when not one
    block can be INT8. Interrupted, the same command resumes.

    Example: exporter quantize auto --config configs/centerpoint_int8.yaml --work work/centerpoint-int8 --max-drop 0.3
    """
    from exporter.quantize.search import auto_search

    click.echo(auto_search(config, work, overrides, data_root=data_root, profiles=profiles, **options))
