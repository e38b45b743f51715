"""Explains what is wrong with a config: one line for each problem, with file, key, value, and what would be right."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from shared.config.schema import DeployConfig
from shared.config.section import Section
from shared.config.walk import KeyPath, choices_of, field_types, key_text, names_at, shape_of, type_at
from shared.errors import ConfigError
from shared.text import one_line

# pydantic's error types, and what would have been right. Those with {placeholders} take them from the error's context.
_SHOULD_BE = {
    "bool_type": "should be true or false",
    "dict_type": "should be a mapping (key: value)",
    "finite_number": "should be a finite number",
    "float_type": "should be a number",
    "greater_than": "should be more than {gt}",
    "greater_than_equal": "should be at least {ge}",
    "int_from_float": "should be a whole number",
    "int_parsing": "should be a whole number",
    "int_type": "should be a whole number",
    "less_than": "should be less than {lt}",
    "less_than_equal": "should be at most {le}",
    "list_type": "should be a list",
    "literal_error": "should be one of {expected}",
    "model_type": "should be a mapping (key: value)",
    "path_type": "should be a path",
    "string_too_short": "should not be empty",
    "string_type": "should be text",
    "too_long": "should have at most {max_length} entries",
    "too_short": "should have at least {min_length} entries",
    "tuple_type": "should be a list",
}

# AWML's names at the top level of its deploy configs, and what they are called here.
_AWML_NAMES = {
    "backend_config": "tensorrt",
    "checkpoint_path": "model.checkpoint",
    "codebase_config": "model.type",
    "model_io": "components",
    "onnx_config": "export",
    "runtime_io": "data",
    "tensorrt_config": "tensorrt",
}

_LONGEST_VALUE = 120


def suggestion(name: object, choices: Sequence[str]) -> str:
    """``did you mean 'mode'?`` when a known name is close, else the list of known names."""
    close = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known keys: {', '.join(choices)}" if choices else "it has no keys"


def unknown_key(keys: KeyPath, root: type[Section] = DeployConfig) -> str:
    """The message for a key that the config does not have: the section that has it, or a close name."""
    *above, name = keys
    if root is DeployConfig and not above and name in _AWML_NAMES:
        return f"unknown key; did you mean {_AWML_NAMES[str(name)]}? An AWML deploy config has the suffix .py"
    homes = [key_text(path) for path in _paths_ending_in(str(name), root)]
    if homes:
        return f"unknown key; did you mean {' or '.join(homes[:3])}?"
    return f"unknown key; {suggestion(name, names_at(root, above))}"


def _paths_ending_in(name: str, root: type[Section]) -> Iterator[KeyPath]:
    """Key paths of the sections at the top that have a key of this name."""
    for section, annotation in field_types(root).items():
        shape = shape_of(annotation)
        if shape.kind == "section" and shape.section is not None and name in field_types(shape.section):
            yield (section, name)


def value_text(value: Any) -> str:
    """A value as it stands in the file, shortened."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, default=str)
    except ValueError:
        text = str(value)
    text = f"'{text}'" if isinstance(value, str) else text
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def explain(error: ValidationError, root: type[Section] = DeployConfig) -> list[tuple[KeyPath, str]]:
    """Key path and what is wrong there, for everything that pydantic found in a ``root``."""
    problems: list[tuple[KeyPath, str]] = []
    for item in error.errors(include_url=False):
        keys, kind, context = _without_markers(item["loc"]), item["type"], item.get("ctx", {})
        if kind == "cross_field":
            for problem_keys, value, right in context["problems"]:
                shown = "" if value is None else f"is {value_text(value)}; "
                problems.append((problem_keys, f"{shown}{right}"))
        elif kind == "extra_forbidden":
            problems.append((keys, unknown_key(keys, root)))
        elif kind == "missing":
            problems.append((keys, "is missing and has no default"))
        elif kind in _SHOULD_BE:
            right = _SHOULD_BE[kind].format(**{name: _plain(value) for name, value in context.items()})
            guess = _close_choice(type_at(root, keys), kind, item["input"])
            problems.append((keys, f"is {value_text(item['input'])}; {right}{guess}"))
        elif isinstance(item["input"], Mapping):
            problems.append((keys, item["msg"]))
        else:
            problems.append((keys, f"is {value_text(item['input'])}; {item['msg']}"))
    return problems


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _without_markers(keys: tuple[int | str, ...]) -> KeyPath:
    # pydantic puts "[key]" after a mapping's key when the key itself is wrong.
    return tuple(key for key in keys if key != "[key]")


def _close_choice(annotation: Any, kind: str, value: Any) -> str:
    if kind != "literal_error":
        return ""
    close = difflib.get_close_matches(str(value), choices_of(annotation), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def as_error(problems: Sequence[tuple[str, str]]) -> ConfigError:
    """One `ConfigError` for all problems, a line each.

    Args:
        problems: where, and what is wrong there.
    """
    return _Problems([f"{where}: {text}" for where, text in problems])


class _Problems(ConfigError):
    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems

    def lines(self) -> list[str]:
        return [one_line(problem) for problem in self.problems]


def place(source: Path | str, line: int | None, keys: KeyPath) -> str:
    """``config.yaml:12: export.mode``."""
    position = f"{source}:{line}" if line is not None else str(source)
    return f"{position}: {key_text(keys)}" if keys else position
