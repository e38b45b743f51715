"""Packages that add something to the tools: installed for one test, found as pip's are."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest


def install(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    name: str,
    files: Mapping[str, str],
    entry_points: Mapping[str, Mapping[str, str]],
    version: str = "1.0",
) -> None:
    """Lay a package into ``folder`` as pip does, and make it importable for the test.

    Args:
        monkeypatch: of the test; what was imported goes with it.
        folder: an empty folder, or one of an earlier version of the package.
        name: of the package, importable.
        files: text of its modules by path in the package, ``task.py`` for example; ``__init__.py`` files are added.
        entry_points: group to name to module.
        version: in the package's metadata.
    """
    root = folder / name
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(textwrap.dedent(text), encoding="utf-8")
    for parent in {root, *(target.parent for target in root.rglob("*.py"))}:
        (parent / "__init__.py").touch()
    for old in folder.glob(f"{name}-*.dist-info"):
        for file in old.iterdir():
            file.unlink()
        old.rmdir()
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items())
            for group, points in entry_points.items()
        )
    )
    monkeypatch.syspath_prepend(str(folder))
    for module in [module for module in sys.modules if module == name or module.startswith(f"{name}.")]:
        monkeypatch.delitem(sys.modules, module)
