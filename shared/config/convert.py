"""AWML's deploy configs as YAML text, and the templates that new configs start from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from shared.config.awml import read_awml
from shared.config.awml_notes import Note
from shared.config.load import build
from shared.config.schema import DeployConfig
from shared.config.walk import map_items, shape_of
from shared.config.write import commented_yaml
from shared.config.yaml_tree import Tree

_TEMPLATES = Path(__file__).parent / "templates"


def template(name: str) -> str:
    """Text of the template of a model type, ``centerpoint``."""
    return (_TEMPLATES / f"{name}.yaml").read_text(encoding="utf-8")


def convert_awml(source: Path, out: Path, model_type: str | None = None) -> tuple[str, tuple[Note, ...]]:
    """An AWML deploy config as YAML.

    Args:
        source: the Python file.
        out: where the YAML will be written; relative paths are rewritten to start there.
        model_type: which model it is for; None: as the file says.

    Returns:
        The text, and what became of the file's keys, which the text also has as comments.

    Raises:
        ConfigError: whatever `load_config` reports for the file; a model type that can't be told from it is no error
            here.
    """
    converted = read_awml(source, model_type)
    value = {**converted.value, "model": {"type": "unknown", **converted.value.get("model", {})}}
    build(Tree(value, converted.lines), source)
    value = _moved(value, DeployConfig, source.absolute().parent, out.absolute().parent)
    header = [
        f"Converted from {source.name}, an AWML deploy config.",
        "",
        "Before: name the training config in model.config and the data folder in data.root, or on the command line.",
        f"Run: exporter export --config {out} --work WORK --set model.config=TRAINING_CONFIG --set data.root=DATA",
        "Override: add --set KEY=VALUE. All keys: docs/configuration.md.",
        *(["", "What became of its keys:"] if converted.notes else []),
        *(f"- {note.comment(source)}" for note in converted.notes),
    ]
    comments = {name: str(field.description) for name, field in DeployConfig.model_fields.items()}
    return commented_yaml(value, header, comments), converted.notes


def _moved(value: Any, annotation: Any, old: Path, new: Path) -> Any:
    """A copy of a config whose relative paths, so far from folder ``old``, start from folder ``new``."""
    path = shape_of(annotation).path
    if path is not None and path.relative_to == "config" and isinstance(value, str):
        return value if value.startswith(("$", "~", "/")) else os.path.relpath(old / value, new)
    return map_items(value, annotation, lambda _, item, kind: _moved(item, kind, old, new))
