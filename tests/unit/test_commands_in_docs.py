"""Every command in the README, the docs and the examples exists, with the options that it is given."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.support.command_lines import MODULES, tool

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").rglob("README.md")),
]


def _commands(page: Path) -> Iterator[list[str]]:
    """The words of every line ``$ ...`` in a console block, environment variables and redirections left out."""
    for block in re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                for part in re.split(r"&&|\|", line[2:].split("  #")[0]):
                    words = shlex.split(part)
                    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                        words.pop(0)
                    if words:
                        yield words


def _check_make(words: list[str]) -> None:
    rules = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in ("Makefile", "docker/docker.mk"))
    targets = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
    for target in targets:
        pattern = re.sub(r"^\w+-(all|int8)$", r"%-\1", target)
        assert re.search(rf"^(.* )?{re.escape(pattern)}( .*)?:", rules, re.MULTILINE), f"make has no target {target}"


def _check_tool(words: list[str]) -> None:
    command: click.Command = tool(Path(words[0]).name)
    arguments = words[1:]
    context = click.Context(command, info_name=words[0])
    while isinstance(command, click.Group):
        found = next((word for word in arguments if word in command.commands), None)
        assert found is not None, f"{' '.join(words)}: no such command"
        arguments = arguments[arguments.index(found) + 1 :]
        command = command.commands[found]
        context = click.Context(command, info_name=found, parent=context)
    command.make_parser(context).parse_args(arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_exist(page: Path) -> None:
    for words in _commands(page):
        if words[0] == "make":
            _check_make(words)
        elif Path(words[0]).name in MODULES:
            _check_tool(words)


def test_the_readme_has_commands() -> None:
    assert {Path(words[0]).name for words in _commands(ROOT / "README.md")} >= {"make", "exporter"}


@pytest.mark.parametrize("words", [["exporter", "exprot"], ["runtime", "run", "--nonsense", "1"]])
def test_a_wrong_command_is_noticed(words: list[str]) -> None:
    with pytest.raises((AssertionError, click.NoSuchOption)):
        _check_tool(words)


def test_a_wrong_target_is_noticed() -> None:
    with pytest.raises(AssertionError):
        _check_make(["make", "centrepoint"])
