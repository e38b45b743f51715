"""Every command that prints a table has ``--json``; tables are printed nowhere else."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.support.command_lines import MODULES, commands, tool

ROOT = Path(__file__).parents[2]

#: What says a sentence, or writes the files that are its answer.
WITHOUT = {
    "demo generate", "demo hard-cases", "evaluator baseline export", "evaluator baseline remove",
    "evaluator baseline set", "evaluator log-mlflow", "evaluator report", "exporter config convert",
    "exporter config init", "exporter config schema", "exporter config show", "exporter export", "exporter models",
    "exporter package autoware", "exporter quantize ptq", "exporter quantize qat", "exporter trace", "manifest check",
    "manifest merge", "manifest rollback", "manifest schema", "manifest tag", "manifest trust", "manifest untag",
    "runtime backends", "runtime messages", "runtime overlay", "runtime swap", "runtime trace", "trt_builder build",
    "trt_builder probe", "trt_builder refit", "trt_builder reproduce", "trt_builder suggest-profiles",
    "verifier export",
}  # fmt: skip

#: Their module makes the table of another command.
TABLES_OF_OTHERS = {
    "evaluator baseline export", "evaluator baseline remove", "evaluator baseline set", "verifier export",
}  # fmt: skip


COMMANDS = {" ".join(words): command for name in MODULES for words, command in commands(tool(name), (name,))}


def _has_json(command: click.Command) -> bool:
    return any("--json" in option.opts for option in command.params)


def _makes_tables(source: str) -> bool:
    """Whether code calls ``Table(...)``, or says where it imports it from."""
    for node in ast.walk(ast.parse(textwrap.dedent(source))):
        if isinstance(node, ast.ImportFrom) and node.module == "shared.table":
            return True
    return False


def _behind(command: click.Command) -> Iterator[str]:
    """The source of a command, and of the modules that it imports when it is called."""
    assert command.callback is not None
    source = inspect.getsource(inspect.unwrap(command.callback))
    yield source
    for node in ast.walk(ast.parse(textwrap.dedent(source))):
        if isinstance(node, ast.ImportFrom) and node.module and "." in node.module:
            path = ROOT / (node.module.replace(".", "/") + ".py")
            if path.is_file():
                yield path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_a_form_for_programs_or_prints_no_table(name: str) -> None:
    command = COMMANDS[name]
    assert _has_json(command) == (name not in WITHOUT), f"{name}: give it `json_option` (shared/cli.py), or add it here"
    if name in WITHOUT - TABLES_OF_OTHERS:
        assert not any(map(_makes_tables, _behind(command))), f"{name} prints a table"


def test_those_without_are_commands() -> None:
    assert set(COMMANDS) >= WITHOUT


def test_json_is_printed_in_one_place() -> None:
    """A command that prints JSON by itself would have keys and rounding of its own. Schemas are no answers."""
    files = ("*/cli.py", "*/*_cli.py", "*/*_commands.py", "*/*/commands.py")
    lines = [line for pattern in files for path in ROOT.glob(pattern) for line in path.read_text().splitlines()]
    assert [line for line in lines if "json.dumps" in line and "schema()" not in line and "overrides" not in line] == []
