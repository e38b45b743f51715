"""docs/migrating.md: what it says is here is here, and what AWML's configs may hold is on it."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

import click
import pytest
from pydantic import BaseModel

from shared.config.awml_schema import AwmlConfig
from shared.config.schema import DeployConfig, json_schema
from tests.support.command_lines import MODULES, tool
from tests.unit.test_commands_in_docs import ROOT, _check_make

PAGE = ROOT / "docs" / "migrating.md"
PACKAGES = ("shared", "exporter", "trt_builder", "runtime", "verifier", "evaluator")
# Options of kinds of models are in their adapters, which need no training framework to be read.
MODEL_OPTIONS = ("exporter.models.centerpoint.options", "exporter.models.yolox.options")
# Values and names of other programs that the right column quotes.
QUOTED = {"Clip(0, 6)", "T4 mAP", "auto", "fp32_tf32", "fp32", "mse", "tolerance", "make"}


def _rows() -> Iterator[tuple[str, str]]:
    """First and last cell of every row of a table."""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            yield cells[0], cells[-1]


def _tokens(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


HERE = sorted({token for _, cell in _rows() for token in _tokens(cell)} - QUOTED)


@cache
def _schema() -> dict[str, Any]:
    return json_schema()


@cache
def _options() -> frozenset[str]:
    """Long options of every command of every tool."""

    def walk(command: click.Command) -> Iterator[str]:
        for parameter in command.params:
            yield from (option for option in parameter.opts if option.startswith("--"))
        for child in command.commands.values() if isinstance(command, click.Group) else ():
            yield from walk(child)

    return frozenset(option for name in MODULES for option in walk(tool(name)))


def _is_command(token: str) -> bool:
    words = token.split()
    if words[0] == "make":
        _check_make(words)
        return True
    if words[0] not in MODULES or words[0] == token:
        return words[0] in MODULES and len(words) > 1
    command: click.Command = tool(words[0])
    for word in words[1:]:
        if word.startswith("--"):
            if word not in _options():
                return False
        elif isinstance(command, click.Group) and word in command.commands:
            command = command.commands[word]
    return not isinstance(command, click.Group)


def _is_key(token: str) -> bool:
    """Whether it is a key of the config, with a value behind it that the key takes, or a key of a model's options."""
    path, _, value = token.partition(": ")
    keys = path.split(".")
    if keys[:2] == ["model", "options"]:
        return any(_has_option(importlib.import_module(module).Options, keys[2:]) for module in MODEL_OPTIONS)
    schema = _schema()
    entry = schema
    for key in keys:
        entry = _resolved(entry, schema)
        if key in entry.get("properties", {}):
            entry = entry["properties"][key]
        elif isinstance(entry.get("additionalProperties"), dict):
            entry = entry["additionalProperties"]
        else:
            return False
    entry = _resolved(entry, schema)
    return not value or value in str(entry.get("enum", value))


def _resolved(entry: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    entry = next((choice for choice in entry.get("anyOf", []) if choice.get("type") != "null"), entry)
    return schema["$defs"][entry["$ref"].rpartition("/")[2]] if "$ref" in entry else entry


def _has_option(model: type[BaseModel], keys: list[str]) -> bool:
    if not keys:
        return True
    if keys[0] not in model.model_fields:
        return False
    annotation = model.model_fields[keys[0]].annotation
    inner = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
    models = [kind for kind in inner if issubclass(kind, BaseModel)]
    return len(keys) == 1 or any(_has_option(kind, keys[1:]) for kind in models)


def _is_python_name(token: str) -> bool:
    """Whether a module of ours defines it at the top; read, not imported, since it may need what is not installed."""
    module, _, name = token.rpartition(".")
    file = ROOT / (module.replace(".", "/") + ".py")
    if not file.is_file():
        file = ROOT / module.replace(".", "/") / "__init__.py"
    if module.partition(".")[0] not in PACKAGES or not file.is_file():
        return False
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return any(isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name for node in tree.body)


def _is_file(token: str) -> bool:
    return "/" in token and " " not in token and (ROOT / token).is_file()


@pytest.mark.parametrize("token", HERE)
def test_what_is_said_to_be_here_is_here(token: str) -> None:
    if token.startswith("--"):
        assert token in _options()
    elif token.split(maxsplit=1)[0] in (*MODULES, "make"):
        assert _is_command(token)
    else:
        assert _is_key(token) or _is_python_name(token) or _is_file(token)


@pytest.mark.parametrize(
    "token",
    [
        "export.opset", "model.options.rot_y", "model.options.nms.limit", "exporter.export.run", "docs/nothing.md",
        "export.simplify: never", "somewhere.else",
    ],
)  # fmt: skip
def test_what_is_not_here_is_noticed(token: str) -> None:
    assert not (_is_key(token) or _is_python_name(token) or _is_file(token))


@pytest.mark.parametrize("token", ["exporter exprot", "exporter config", "runtime run --nonsense"])
def test_a_wrong_command_is_noticed(token: str) -> None:
    assert not _is_command(token)


def _keys(model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[str]:
    """Names of all keys of a section, at any depth."""
    if model in seen:
        return
    seen.add(model)
    for name, field in model.model_fields.items():
        yield name
        for kind in _kinds(field.annotation):
            if issubclass(kind, BaseModel):
                yield from _keys(kind, seen)


def _kinds(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type):
        yield annotation
    for argument in get_args(annotation):
        yield from _kinds(argument)


@pytest.mark.parametrize("key", sorted(set(_keys(AwmlConfig, set())) - set(_keys(DeployConfig, set()))))
def test_every_key_of_awml_is_on_the_page(key: str) -> None:
    """Those that our configs have as well mean the same."""
    named = {part for left, _ in _rows() for token in _tokens(left) for part in token.split(".")}
    assert key in named


@pytest.mark.parametrize("option", ["--rot-y-axis-reference", "--work-dir", "--log-level", "--calibrate-batches"])
def test_options_of_awml_are_on_the_page(option: str) -> None:
    assert option in {token for left, _ in _rows() for token in _tokens(left)}


def test_it_is_linked() -> None:
    for page in ("README.md", "docs/configuration.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert re.search(r"\]\((docs/)?migrating\.md", text), page
