"""The command lines of the tools, by the names that a user types."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import click

from shared.cli import ToolGroup

#: Where the group ``cli`` of each is.
MODULES = {
    **{name: f"{name}.cli" for name in ("exporter", "trt_builder", "runtime", "verifier", "evaluator", "demo")},
    "manifest": "shared.manifest_cli",
}


def tool(name: str) -> ToolGroup:
    """The command line of a tool."""
    group: Any = importlib.import_module(MODULES[name]).cli
    return group


def commands(group: click.Group, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """All commands of a group, with the words that call them, those ``above`` first."""
    for word, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*above, word))
        else:
            yield (*above, word), command
