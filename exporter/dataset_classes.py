"""Class names that a type of data set has by itself, where a training config does not list them.

mmdet's and mmdet3d's types have them as ``METAINFO``. That is read from their sources, not by importing them: a data
set's module needs packages that an export does without.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PACKAGES = ("mmdet", "mmdet3d")

# Types of AWML that are in no package.
_AWML = {
    "BDD100kDataset": (
        "pedestrian", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle", "traffic light", "traffic sign",
    ),
}  # fmt: skip


def classes_of_dataset(kind: str | None) -> tuple[str, ...]:
    """Class names of a type of data set, in label order; empty where it is not known or has none.

    Args:
        kind: as a config has it, ``CocoDataset``, ``mmdet.CocoDataset`` or the dotted name of the class.
    """
    if kind is None:
        return ()
    scope, _, name = kind.rpartition(".")
    if not scope and name in _AWML:
        return _AWML[name]
    package = scope.partition(".")[0]
    for candidate in (package,) if package else _PACKAGES:
        names = _classes(name, list(_modules(candidate)))
        if names:
            return names
    return ()


def _modules(package: str) -> Iterator[Path]:
    spec = importlib.util.find_spec(package) if package in _PACKAGES else None
    for location in (spec.submodule_search_locations or ()) if spec is not None else ():
        yield from sorted(Path(location, "datasets").glob("*.py"))


def _classes(name: str, modules: list[Path]) -> tuple[str, ...]:
    """``METAINFO['classes']`` of a class, or of the first of its bases in the same modules that has some."""
    definition = _definition(name, modules)
    if definition is None:
        return ()
    for statement in definition.body:
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and _target(statement) == "METAINFO":
            names = _entry(statement.value, "classes")
            return tuple(str(item) for item in names) if isinstance(names, (list, tuple)) else ()
    for base in definition.bases:
        if isinstance(base, ast.Name) and (names := _classes(base.id, modules)):
            return names
    return ()


def _definition(name: str, modules: list[Path]) -> ast.ClassDef | None:
    for path in modules:
        text = path.read_text(encoding="utf-8")
        if f"class {name}(" in text:
            for node in ast.parse(text).body:
                if isinstance(node, ast.ClassDef) and node.name == name:
                    return node
    return None


def _target(statement: ast.Assign | ast.AnnAssign) -> str | None:
    target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
    return target.id if isinstance(target, ast.Name) else None


def _entry(node: ast.expr | None, key: str) -> Any:
    """An entry of a dict that is written as ``{…}`` or ``dict(…)``; None where it is not there or not literal."""
    pairs: list[tuple[object, ast.expr]] = []
    if isinstance(node, ast.Dict):
        pairs = [(name.value, value) for name, value in zip(node.keys, node.values, strict=True)
                 if isinstance(name, ast.Constant)]  # fmt: skip
    elif isinstance(node, ast.Call):
        pairs = [(keyword.arg, keyword.value) for keyword in node.keywords]
    for name, value in pairs:
        if name == key:
            try:
                return ast.literal_eval(value)
            except ValueError:
                return None
    return None
