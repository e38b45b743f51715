"""The rooms of the house: who may import what. Sees plain imports, imports in functions, and lazy_import("...")."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("exporter", "trt_builder", "runtime", "verifier", "evaluator")
ROOMS = (*TOOLS, "shared", "demo")
TRAINING = {"mmengine", "mmcv", "mmdet", "mmdet3d", "mmpretrain", "mmdeploy"}


def _imports(path: Path) -> Iterator[str]:
    """Dotted names of everything that a source file imports, lazily or not."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in ("lazy_import", "import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value


# Packages that only some places may import; a place is a room, a file or folder in one, or a pattern of files.
RESTRICTED = {
    **dict.fromkeys(TRAINING, ("exporter",)),
    **dict.fromkeys(("torch", "modelopt"), ("exporter", "runtime/backends/pytorch.py")),
    **dict.fromkeys(("tensorrt", "tensorrt_rtx", "pycuda"), ("trt_builder", "runtime")),
    # In the verifier, finding the node that is wrong means running windows of the graph; the rest of it loads nothing.
    "ray": ("shared/cluster",),
    "mlflow": ("evaluator/mlflow_log.py",),
    "onnxruntime": ("runtime", "exporter", "verifier/bisect"),
    **{name: (name,) for name in TOOLS},
    # Training of the demo's models generates scenes as it goes; no tool imports it.
    "demo": ("demo", "exporter/demo_*.py", "exporter/models/*/demo*.py"),
}


def _allowed(package: str, importer: Path) -> bool:
    return package not in RESTRICTED or any(
        importer.is_relative_to(place) or importer.match(place) for place in RESTRICTED[package]
    )


def _violations(root: Path) -> list[str]:
    found = []
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            importer = path.relative_to(root)
            for name in _imports(path):
                if not _allowed(name.split(".")[0], importer):
                    found.append(f"{importer} imports {name}")
    return found


def test_every_room_keeps_to_its_imports() -> None:
    assert not _violations(ROOT)


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("verifier/a.py", "import torch"),
        ("verifier/a.py", "def f():\n    from torch import nn"),
        ("verifier/a.py", 'ort = lazy_import("onnxruntime")'),
        ("runtime/a.py", 'torch = lazy_import("torch")'),
        ("runtime/a.py", "import mmdet3d.models"),
        ("evaluator/a.py", "from verifier import boxes"),
        ("shared/a.py", "import runtime"),
        ("exporter/a.py", "import tensorrt"),
    ],
)
def test_a_forbidden_import_is_seen(tmp_path: Path, where: str, line: str) -> None:
    (tmp_path / where).parent.mkdir()
    (tmp_path / where).write_text(line)
    assert len(_violations(tmp_path)) == 1


def test_shared_loads_nothing_slow() -> None:
    """The parts of shared that every command line imports at start pull in no slow package."""
    code = (
        "import sys; import shared.cli, shared.errors, shared.lazy, shared.progress; "
        "print([m for m in ('numpy', 'pydantic', 'torch', 'onnx', 'matplotlib', 'rich', 'yaml') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert answer.stdout.strip() == "[]"
