"""``exporter quantize``: INT8."""

from __future__ import annotations

import click

from exporter.quantize.lint_command import lint_command
from exporter.quantize.ptq_command import ptq_command
from exporter.quantize.qat_command import qat_command
from exporter.quantize.search_commands import auto_command, sensitivity_command


@click.group(name="quantize")
def quantize_group() -> None:
    """Quantize a model to INT8, before it is exported."""


quantize_group.add_command(ptq_command)
quantize_group.add_command(qat_command)
quantize_group.add_command(sensitivity_command)
quantize_group.add_command(auto_command)
quantize_group.add_command(lint_command)
