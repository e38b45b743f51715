"""Reads YAML into plain values and remembers the line of every key, for error messages.

Stricter than PyYAML: a key that stands twice is an error. Closer to YAML 1.2: ``1e-3`` is a number, ``on`` and ``yes``
are text, and so is a date.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shared.config.walk import KeyPath
from shared.errors import ConfigError

# Deeper than any config, and far from Python's recursion limit.
_MAX_DEPTH = 50
# Larger than any config, and read in well under a second.
_MAX_NODES = 100_000


@dataclass(frozen=True)
class Tree:
    """A document: its value, and the line (from 1) on which each key path begins."""

    value: Any
    lines: dict[KeyPath, int]


class ConfigLoader(yaml.SafeLoader):
    """SafeLoader whose plain scalars are text, int, float, true, false or null, and nothing else."""


ConfigLoader.yaml_implicit_resolvers = {}
for _tag, _form, _first in (
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:int", r"[-+]?(?:0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.[0-9]+(?:[eE][-+]?[0-9]+)?"
        r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("tag:yaml.org,2002:merge", r"<<", "<"),
):
    ConfigLoader.add_implicit_resolver(_tag, re.compile(f"^(?:{_form})$"), list(_first))


def read_yaml(path: Path) -> Tree:
    """Read a YAML file.

    Raises:
        ConfigError: missing, no UTF-8, no YAML, a key that stands twice, or no mapping at the top.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            "no such config file", where=str(path), hint="`exporter config init` writes one to start from"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"can't be read ({reason})", where=str(path), hint="a deploy config is YAML") from error
    tree = parse_yaml(text, str(path))
    if not isinstance(tree.value, dict):
        raise ConfigError(
            "is empty" if tree.value is None else f"is a {type(tree.value).__name__}, where sections should be",
            where=str(path),
            hint="start from `exporter config init`",
        )
    return tree


def parse_yaml(text: str, where: str) -> Tree:
    """Parse one YAML document; ``where`` names it in errors.

    Raises:
        ConfigError: no YAML, or a key that stands twice.
    """
    loader = ConfigLoader(text)
    try:
        node = loader.get_single_node()
        lines: dict[KeyPath, int] = {}
        if node is None:
            return Tree(None, lines)
        _refuse(node, where)
        value = loader.construct_document(node)
        lines.update(_lines(loader, node, ()))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark is not None else ""
        problem = " ".join(str(error.problem or error.context).split())
        raise ConfigError(
            f"is not valid YAML: {problem}", where=f"{where}{line}", hint="check indentation, colons and quotes there"
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise ConfigError(f"is not valid YAML: {problem}", where=where) from error
    finally:
        loader.dispose()
    return Tree(value, lines)


def _refuse(root: yaml.Node, where: str) -> None:
    """Refuse what PyYAML takes.

    Raises:
        ConfigError: a key that stands twice in a mapping, an alias that holds itself, or aliases that unfold to
            something huge.
    """
    stack: list[tuple[yaml.Node, int]] = [(root, 0)]
    for _ in range(_MAX_NODES):
        if not stack:
            return
        node, depth = stack.pop()
        if depth > _MAX_DEPTH:
            raise ConfigError(
                f"is nested deeper than {_MAX_DEPTH} levels, or holds itself",
                where=f"{where}:{node.start_mark.line + 1}",
                hint="check the aliases (*name)",
            )
        if isinstance(node, yaml.MappingNode):
            _refuse_repeated_keys(node, where)
            stack.extend((child, depth + 1) for _, child in node.value)
        elif isinstance(node, yaml.SequenceNode):
            stack.extend((child, depth + 1) for child in node.value)
    raise ConfigError(f"has more than {_MAX_NODES} values", where=where, hint="check the aliases (*name)")


def _refuse_repeated_keys(node: yaml.MappingNode, where: str) -> None:
    first: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else (key.tag, str(id(key)))
        line = key.start_mark.line + 1
        if name in first:
            raise ConfigError(
                f"key '{name[1]}' stands twice (first on line {first[name]})",
                where=f"{where}:{line}",
                hint="keep one of the two",
            )
        first[name] = line


def _lines(loader: ConfigLoader, node: yaml.Node, keys: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    yield keys, node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            yield from _lines(loader, item, (*keys, position))
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = loader.construct_object(key, deep=True)
            if isinstance(name, (str, int)):
                yield from _lines(loader, value, (*keys, name))
                # A section begins on the line of its key, not on that of its first entry.
                yield (*keys, name), key.start_mark.line + 1


def line_of(lines: dict[KeyPath, int], keys: KeyPath) -> int | None:
    """The line of a key path, or of the nearest one above it that the file has."""
    for length in range(len(keys), -1, -1):
        if keys[:length] in lines:
            return lines[keys[:length]]
    return None
