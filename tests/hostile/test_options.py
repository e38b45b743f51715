"""Options of all commands: whatever stands in place of a number is a usage error, before anything is read."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest

from tests.hostile.commands import run
from tests.hostile.values import NUMBERS
from tests.support.command_lines import commands, tool

TOOLS = ("manifest", "trt_builder", "runtime", "verifier", "evaluator", "exporter")


COMMANDS = [entry for name in TOOLS for entry in commands(tool(name), (name,))]


def required(command: click.Command, without: click.Parameter) -> list[str]:
    """Arguments that give each required parameter something."""
    given: list[str] = []
    for parameter in command.params:
        if parameter.required and parameter is not without:
            choices = parameter.type.choices if isinstance(parameter.type, click.Choice) else ["nowhere"]
            given += [parameter.opts[0], str(choices[0])] if isinstance(parameter, click.Option) else ["nowhere"]
    return given


NUMERIC = [
    (words, command, option)
    for words, command in COMMANDS
    for option in command.params
    if isinstance(option.type, click.types.IntParamType | click.types.FloatParamType)
]


@pytest.mark.parametrize(("words", "command", "option"), NUMERIC, ids=lambda value: getattr(value, "name", None))
@pytest.mark.parametrize("text", NUMBERS, ids=lambda text: repr(text[:8]))
def test_numbers(words: tuple[str, ...], command: click.Command, option: click.Option, text: str) -> None:
    answer = run([*words, *required(command, option), f"{option.opts[0]}={text}"])
    assert answer.faults([2]) == [], answer.err


@pytest.mark.parametrize(
    ("words", "command"), COMMANDS, ids=lambda value: "-".join(value) if isinstance(value, tuple) else ""
)
@pytest.mark.parametrize("kind", ["missing", "file", "pipe", "loop", "long", "bytes", "empty", "escapes"])
def test_workspaces_that_are_none(
    words: tuple[str, ...], command: click.Command, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    option = next((option for option in command.params if option.name == "work"), None)
    if option is None:
        pytest.skip("takes no workspace")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "work"
    if kind == "file":
        path.write_text("{}")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to("work")
    name = {"long": "x" * 5000, "bytes": "a\udcff", "empty": "", "escapes": "\x1b[31m\n"}.get(kind, str(path))
    answer = run([*words, *required(command, option), "--work", name])
    assert answer.faults([2, 3, 4]) == [], answer.err
