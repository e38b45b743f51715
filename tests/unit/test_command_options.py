"""Commands that hand their options on as they are: each is a parameter of the function behind the command."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from runtime import bench, ranges, run, swap, trace
from runtime.cli import cli
from runtime.model import ModelOptions
from runtime.models.calibration import overlay


@pytest.mark.parametrize(
    ("command", "function"),
    [
        ("run", run.run),
        ("bench", bench.bench),
        ("overlay", overlay.overlay),
        ("ranges", ranges.record_ranges),
        ("trace", trace.trace),
        ("swap", swap.swap),
    ],
)
def test_options_are_parameters(command: str, function: Callable[..., Any]) -> None:
    # --trust acts before the command, --json on what it answers; it sees neither.
    options = {str(parameter.name) for parameter in cli.commands[command].params} - {"trust", "as_json"}
    parameters = dict(inspect.signature(function).parameters)
    known = set(parameters) | (set(ModelOptions.__annotations__) if "options" in parameters else set())
    required = {name for name, value in parameters.items() if value.default is value.empty} - {"options"}
    assert required <= options <= known
