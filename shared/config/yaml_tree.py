"""Reads YAML into plain values and keeps the line of every key, for error messages.

A plain scalar is text, a number, true, false or null by YAML 1.2's rules: ``1e-3`` is a number; ``on``, ``yes``, dates
and whole numbers with leading zeros (``0061``, a scene of nuScenes) are text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import MaxDepthExceededError
from ruamel.yaml.constructor import ConstructorError, DuplicateKeyError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.resolver import VersionedResolver

from shared.config.walk import KeyPath
from shared.errors import ConfigError
from shared.regular_files import open_regular

# Deeper than any config, and far from Python's recursion limit.
_MAX_DEPTH = 50
# Larger than any config. Aliases can make it of a few lines.
_MAX_NODES = 100_000


@dataclass(frozen=True)
class Tree:
    """A document: its value, and the line (from 1) on which each key path begins."""

    value: Any
    lines: dict[KeyPath, int]


# Larger than any config, and read within seconds.
_MAX_BYTES = 128 << 10

Rules = dict[str, list[tuple[str, Any]]]

# First character of a plain scalar to the tags that it may have, each with its pattern.
RULES: Rules = {}
for _tag, _form, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(?:0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.[0-9]+(?:[eE][-+]?[0-9]+)?"
        r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("merge", r"<<", "<"),
):
    for _character in _first:
        RULES.setdefault(_character, []).append((f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_form})$")))


class _Resolver(VersionedResolver):
    """What a plain scalar is, whatever version a ``%YAML`` line asks for.

    ruamel's own rules for YAML 1.2 take dates for dates, and ``0061`` for 61.
    """

    @property
    def versioned_resolver(self) -> Rules:
        """The rules that ruamel looks scalars up in."""
        return RULES

    @property
    def processing_version(self) -> tuple[int, int]:
        """The version whose syntax of numbers and indentation ruamel follows."""
        return (1, 2)


def read_yaml(path: Path) -> Tree:
    """Read a YAML file.

    Raises:
        ConfigError: missing, too large, not UTF-8, not valid YAML, a duplicate key, or no mapping at the top.
        InputError: not a regular file.
    """
    if not os.path.lexists(path):
        raise ConfigError(
            "no such config file", where=str(path), hint="`exporter config init` writes one to start from"
        )
    with open_regular(path, hint="a deploy config is YAML") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"is larger than {_MAX_BYTES >> 10} kB, which no config is", where=str(path))
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            "can't be read (it is not UTF-8 text)", where=str(path), hint="a deploy config is YAML"
        ) from error
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
        ConfigError: not valid YAML, a duplicate key, or more levels or values than any config has.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Resolver = _Resolver
    yaml.max_depth = _MAX_DEPTH
    yaml.composer.warn_double_anchors = False
    try:
        root = yaml.compose(text)
        if root is None:
            return Tree(None, {})
        _limit_size(root, where)
        value = yaml.constructor.construct_document(root)
        return Tree(value, dict(_lines(yaml.constructor, root, ())))
    except MarkedYAMLError as error:
        raise _refusal(error, where) from error
    except (YAMLError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise ConfigError(f"is not valid YAML: {problem}", where=where) from error


def _refusal(error: MarkedYAMLError, where: str) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    if mark is not None:
        where = f"{where}:{mark.line + 1}:{mark.column + 1}"
    problem = " ".join(str(error.problem or error.context).split())
    if isinstance(error, MaxDepthExceededError):
        return ConfigError(f"is nested deeper than {_MAX_DEPTH} levels", where=where)
    if isinstance(error, DuplicateKeyError):
        # ruamel's text goes on with both values, whatever their length.
        key = problem.partition('"')[2].partition('" with value ')[0].removesuffix('"')
        line = error.context_mark.line + 1
        return ConfigError(
            f"duplicate key '{key}' in the mapping that begins on line {line}", where=where, hint="keep one of the two"
        )
    return ConfigError(f"is not valid YAML: {problem}", where=where, hint="check indentation, colons and quotes there")


def _limit_size(root: Node, where: str) -> None:
    """Refuse aliases that unfold to something huge, or that contain themselves.

    Raises:
        ConfigError: more than `_MAX_NODES` keys and values.
    """
    stack = [root]
    for _ in range(_MAX_NODES):
        if not stack:
            return
        node = stack.pop()
        if isinstance(node, MappingNode):
            stack.extend(child for entry in node.value for child in entry)
        elif isinstance(node, SequenceNode):
            stack.extend(node.value)
    raise ConfigError(
        f"has more than {_MAX_NODES} keys and values, or an alias inside itself",
        where=where,
        hint="check the aliases (*name)",
    )


def _lines(constructor: SafeConstructor, node: Node, keys: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    yield keys, node.start_mark.line + 1
    if isinstance(node, SequenceNode):
        for position, item in enumerate(node.value):
            yield from _lines(constructor, item, (*keys, position))
    elif isinstance(node, MappingNode):
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                raise ConstructorError(problem="a list can't be a key", problem_mark=key.start_mark)
            name = constructor.construct_object(key)
            if isinstance(name, (str, int)):
                yield from _lines(constructor, value, (*keys, name))
                # A section begins on the line of its key, not on that of its first entry.
                yield (*keys, name), key.start_mark.line + 1


def line_of(lines: dict[KeyPath, int], keys: KeyPath) -> int | None:
    """The line of a key path, or of the nearest one above it that the file has."""
    for length in range(len(keys), -1, -1):
        if keys[:length] in lines:
            return lines[keys[:length]]
    return None
