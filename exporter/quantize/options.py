"""Options that the commands of ``exporter quantize`` share."""

from __future__ import annotations

from pathlib import Path

import click

skip_option = click.option(
    "--skip",
    "--skip-layers",
    "skip",
    multiple=True,
    metavar="NAME|REGEX",
    help="Leave these layers in floating point, too: a layer, a block, or a regular expression. Repeatable.",
)
output_option = click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Copy the checkpoint to this file."
)
