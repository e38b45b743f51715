"""``exporter package``: bundles for the software that runs in the vehicle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from shared.cli import FOLDER, force_option, workspace_option
from shared.errors import UsageError

if TYPE_CHECKING:
    from exporter.autoware import Precision


@click.group(name="package")
def package_group() -> None:
    """Make the bundle that other software loads a model from."""


@package_group.command("autoware")
@workspace_option
@click.option("--out", type=FOLDER, required=True, help="The folder to make.")
@click.option(
    "--autoware",
    "release",
    metavar="VERSION",
    default="0.53",
    show_default=True,
    help="Release of autoware_universe whose node and launch files the bundle is for: 0.53 or 0.52.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "strongly-typed"]),
    help="What the node builds engines in. [default: as tensorrt.precision_policy of the config]",
)
@click.option(
    "--model-name",
    help="`model_name` of the launch files of 0.52, part of a CenterPoint's file names. [default: centerpoint]",
)
@click.option(
    "--score-threshold",
    "thresholds",
    multiple=True,
    metavar="[CLASS=]VALUE[,…]",
    help="Least score: 0.4, CAR=0.4, or CAR=0.4,0.35,0.3,0.3 (up to 50, 90, 121, 200 m). Repeatable. [default: 0.35]",
)
@click.option("--bundle-version", help="Version of the bundle. [default: CenterPoint v4.1 (0.52: v3.0), others v1.0]")
@click.option(
    "--ego-box",
    type=(float, float, float, float, float, float),
    default=(0.0,) * 6,
    help="Box of the vehicle that the calibration node masks: x y z x y z in meters; printed for the node's own "
    "parameter file.",
)
@force_option
def autoware_command(
    work: Path,
    out: Path,
    release: str,
    precision: Precision | None,
    model_name: str | None,
    thresholds: tuple[str, ...],
    bundle_version: str | None,
    ego_box: tuple[float, float, float, float, float, float],
    force: bool,
) -> None:
    """Make the folder that Autoware's CenterPoint, YOLOX or calibration status node loads the model from.

    Files and parameters are named as the node expects them, and filled from the model spec. A model that the node would
    misread is refused: CenterPoint needs an export with model.options.rot_y_axis_reference. With --precision
    strongly-typed, the bundle has a second ONNX file of every network, which computes in FP16 by the types in it.

    Example: exporter package autoware --work work/centerpoint --out centerpoint/base --score-threshold CAR=0.4
    """
    from exporter import autoware
    from exporter.autoware import BundleOptions
    from exporter.autoware.package import METADATA, package_autoware

    options = BundleOptions(
        autoware=autoware.release(release),
        precision=precision,
        model_name=model_name,
        version=bundle_version,
        score_thresholds=dict(_threshold(text) for text in thresholds),
        ego_box=ego_box,
    )
    bundle = package_autoware(work, out, options, force=force)
    for name in (*bundle.onnx, *bundle.typed_onnx, *bundle.parameters, *bundle.texts, METADATA):
        click.echo(out / name)
    for note in bundle.notes:
        click.echo(f"note: {note}")


def _threshold(text: str) -> tuple[str, tuple[float, ...]]:
    """``CAR=0.4,0.3`` as ("CAR", (0.4, 0.3)), by label; without a class, the name is empty: all others.

    Raises:
        UsageError: not numbers from 0 to 1.
    """
    from exporter.autoware.labels import label_of

    name, _, values = text.rpartition("=")
    try:
        numbers = tuple(float(value) for value in values.split(","))
    except ValueError:
        numbers = (-1.0,)
    if not all(0 <= number <= 1 for number in numbers):
        raise UsageError(f"'{text}' is not a score", where="--score-threshold", hint="for example 0.4 or CAR=0.4")
    return label_of(name), numbers
