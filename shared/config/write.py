"""Writes a config as YAML that people like to read: short lists on one line, a comment above each section."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from shared.config.yaml_tree import ConfigLoader

_WIDTH = 120


class _Dumper(yaml.SafeDumper):
    """SafeDumper that writes small values on one line, indents lists, and writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        """Write equal values out again instead of as an alias."""
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT
        """Indent the entries of a list below its key."""
        super().increase_indent(flow, False)


def _is_flat(value: Any) -> bool:
    return not isinstance(value, (dict, list, tuple))


def _represent_list(dumper: yaml.SafeDumper, value: Sequence[Any]) -> yaml.Node:
    node = dumper.represent_sequence("tag:yaml.org,2002:seq", list(value), flow_style=all(map(_is_flat, value)))
    for item, child in zip(value, node.value, strict=True):
        if isinstance(item, dict):
            child.flow_style = all(map(_is_flat, item.values()))
    return node


def _represent_dict(dumper: yaml.SafeDumper, value: Mapping[Any, Any]) -> yaml.Node:
    # Axis numbers to names: a short table, on one line.
    axes = bool(value) and all(isinstance(key, int) for key in value)
    return dumper.represent_mapping("tag:yaml.org,2002:map", value, flow_style=axes or not value)


def _represent_float(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
    # PyYAML writes 1e-05, which YAML 1.2 and our reader take for a number, but PyYAML itself for text.
    text = repr(value)
    return dumper.represent_scalar(
        "tag:yaml.org,2002:float", text if "e" not in text or "." in text else text.replace("e", ".0e")
    )


def _represent_text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    # Unicode line breaks survive in double quotes only.
    style = '"' if any(character in value for character in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


# Text that our reader, or a YAML 1.1 reader, would take for a number or a flag is written in quotes.
for _first, _resolvers in ConfigLoader.yaml_implicit_resolvers.items():
    for _tag, _form in _resolvers:
        _Dumper.add_implicit_resolver(_tag, _form, [_first])

_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(dict, _represent_dict)
_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(tuple, _represent_list)
_Dumper.add_representer(float, _represent_float)


def to_yaml(value: Any) -> str:
    """YAML of plain values (what `shared.config.load.resolved` gives), keys in their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=_WIDTH, allow_unicode=True)


def commented_yaml(value: Mapping[str, Any], header: Sequence[str], comments: Mapping[str, str]) -> str:
    """YAML with a header and a comment above each section."""
    lines = [wrapped for line in header for wrapped in _comment(line)]
    for name, section in value.items():
        lines += ["", *_comment(comments[name])] if name in comments else [""]
        lines.append(to_yaml({name: section}).rstrip("\n"))
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH - 2)] or ["#"]
