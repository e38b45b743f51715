"""AWML's deploy configs as YAML text, and the templates that new configs start from."""

from __future__ import annotations

import os
from pathlib import Path

from shared.config.awml import read_awml
from shared.config.load import build
from shared.config.schema import DeployConfig
from shared.config.write import commented_yaml
from shared.config.yaml_tree import Tree

_TEMPLATES = Path(__file__).parent / "templates"


def template(name: str) -> str:
    """Text of the template ``centerpoint``, ``yolox`` or ``calibration``."""
    return (_TEMPLATES / f"{name}.yaml").read_text(encoding="utf-8")


def convert_awml(source: Path, out: Path) -> tuple[str, tuple[str, ...]]:
    """An AWML deploy config as YAML.

    Args:
        source: the Python file.
        out: where the YAML will be written; relative paths are rewritten to start there.

    Returns:
        The text, and the warnings (one line each), which the text also has as comments.

    Raises:
        ConfigError: whatever `load_config` reports for the file; a model type that can't be told from it is no error
            here.
    """
    converted = read_awml(source)
    value = dict(converted.value)
    model = dict(value.get("model", {}))
    if "type" not in model:
        value["model"] = {"type": "unknown", **model}
    build(Tree(value, converted.lines), source)
    for section, key in (("model", "checkpoint"), ("export", "onnx_path")):
        text = value.get(section, {}).get(key)
        if text is not None and not text.startswith(("$", "~", "/")):
            moved = os.path.relpath(source.absolute().parent / text, out.absolute().parent)
            value[section] = {**value[section], key: moved}
    header = [
        f"Converted from {source.name}, an AWML deploy config.",
        "",
        "Before: name the training config in model.config and the data folder in data.root, or on the command line.",
        f"Run: exporter export --config {out} --work WORK --set model.config=TRAINING_CONFIG --set data.root=DATA",
        "Override: add --set KEY=VALUE. All keys: docs/configuration.md.",
        *(["", "What changed:"] if converted.warnings else []),
        *(f"- {warning.replace(f'{source}:', 'line ', 1)}" for warning in converted.warnings),
    ]
    comments = {name: str(field.description) for name, field in DeployConfig.model_fields.items()}
    return commented_yaml(value, header, comments), converted.warnings
