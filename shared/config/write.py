"""Writes a config as YAML that people like to read: short lists on one line, a comment above each section."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.emitter import Emitter, ScalarAnalysis
from ruamel.yaml.nodes import Node
from ruamel.yaml.representer import SafeRepresenter
from ruamel.yaml.resolver import VersionedResolver, implicit_resolvers

from shared.config.yaml_tree import RULES, Rules

_WIDTH = 120


# Text that our reader, or any reader of YAML 1.1 or 1.2, would take for something else is written in quotes.
_RULES: Rules = {first: list(rules) for first, rules in RULES.items()}
for _, _tag, _form, _characters in implicit_resolvers:
    for _first in _characters:
        _RULES.setdefault(_first, []).append((_tag, _form))


class _Resolver(VersionedResolver):
    @property
    def versioned_resolver(self) -> Rules:
        """The rules by which ruamel decides what needs quotes."""
        return _RULES


class _Emitter(Emitter):
    """Quotes text with ``:`` or ``?`` inside ``[]`` and ``{}``; ruamel 0.19 leaves it plain, and can't read it back."""

    def analyze_scalar(self, scalar: str) -> ScalarAnalysis:
        """How a scalar may be written."""
        analysis: ScalarAnalysis = super().analyze_scalar(scalar)
        if ":" in scalar or "?" in scalar:
            analysis.allow_flow_plain = False
        return analysis


class _Representer(SafeRepresenter):
    """Small values on one line, no aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the signature is ruamel's
        """Write equal values out in full instead of as an alias."""
        return True


def _is_flat(value: Any) -> bool:
    return not isinstance(value, (dict, list, tuple))


def _represent_list(representer: SafeRepresenter, value: Sequence[Any]) -> Node:
    node = representer.represent_sequence("tag:yaml.org,2002:seq", list(value), flow_style=all(map(_is_flat, value)))
    for item, child in zip(value, node.value, strict=True):
        if isinstance(item, dict):
            child.flow_style = all(map(_is_flat, item.values()))
    return node


def _represent_dict(representer: SafeRepresenter, value: Mapping[Any, Any]) -> Node:
    # Axis numbers to names: a short table, on one line.
    axes = bool(value) and all(isinstance(key, int) for key in value)
    return representer.represent_mapping("tag:yaml.org,2002:map", value, flow_style=axes or not value)


def _represent_float(representer: SafeRepresenter, value: float) -> Node:
    # Python writes 1e-05, which YAML 1.2 takes for a number, but YAML 1.1 for text.
    text = {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(repr(value), repr(value))
    return representer.represent_scalar(
        "tag:yaml.org,2002:float", text if "e" not in text or "." in text else text.replace("e", ".0e")
    )


def _represent_text(representer: SafeRepresenter, value: str) -> Node:
    # Unicode line breaks survive in double quotes only.
    style = '"' if any(character in value for character in "\x85\u2028\u2029") else None
    return representer.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Representer.add_representer(str, _represent_text)
_Representer.add_representer(dict, _represent_dict)
_Representer.add_representer(list, _represent_list)
_Representer.add_representer(tuple, _represent_list)
_Representer.add_representer(float, _represent_float)


def to_yaml(value: Any) -> str:
    """YAML of plain values (what `shared.config.load.resolved` gives), keys in their order."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Resolver, yaml.Representer, yaml.Emitter = _Resolver, _Representer, _Emitter
    # ruamel counts what closes a list or a mapping, too.
    yaml.width = _WIDTH + 2
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # ruamel infers None from its default
    yaml.indent(mapping=2, sequence=4, offset=2)
    text = io.StringIO()
    yaml.dump(value, text)
    return text.getvalue()


def commented_yaml(value: Mapping[str, Any], header: Sequence[str], comments: Mapping[str, str]) -> str:
    """YAML with a header and a comment above each section."""
    lines = [wrapped for line in header for wrapped in _comment(line)]
    for name, section in value.items():
        lines += ["", *_comment(comments[name])] if name in comments else [""]
        lines.append(to_yaml({name: section}).rstrip("\n"))
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH - 2)] or ["#"]
