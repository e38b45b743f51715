"""Every name that docs/public_api.py calls public is there, with its errors, on its page, since a known version."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import shared

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "api"
# `raise` of these says something about the program, not about what it was given.
_OF_THE_PROGRAM = {"AssertionError", "NotImplementedError", "StopIteration"}


@pytest.fixture(scope="module")
def api() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs")
        yield importlib.import_module("api_pages")


@pytest.fixture(scope="module")
def objects(api: ModuleType) -> dict[str, Any]:
    """What is public, by module and name, with the methods of classes."""
    found = {}
    for page in api.PAGES.values():
        for module, names in page.modules.items():
            for name in names:
                found[f"{module}.{name}"] = owner = api.public_object(module, name)
                found |= {f"{module}.{name}.{member.name}": member for member in api.public_members(owner)}
    return found


def test_versions_are_ones_that_there_are(api: ModuleType) -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    known = set(re.findall(r"^## (\d+\.\d+)\.", changelog, re.MULTILINE))
    assert shared.__version__.rpartition(".")[0] in known
    since = {version for page in api.PAGES.values() for names in page.modules.values() for version in names.values()}
    assert since <= known


def test_all_have_docstrings(objects: dict[str, Any]) -> None:
    assert [name for name, found in objects.items() if not found.docstring] == []


def test_errors_that_are_raised_are_described(objects: dict[str, Any]) -> None:
    """Those that stand in a function's own lines; what it calls has a docstring of its own."""
    missing = []
    for name, found in objects.items():
        if found.is_function:
            described = found.docstring.value + found.parent.docstring.value if found.docstring else ""
            missing += [f"{name}: {error}" for error in sorted(_raised(found)) if error not in described]
    assert missing == []


def _raised(function: Any) -> set[str]:
    lines = function.filepath.read_text().splitlines()[function.lineno - 1 : function.endlineno]
    (tree,) = ast.parse("\n".join(line[len(lines[0]) - len(lines[0].lstrip()) :] for line in lines)).body
    raised = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            raised.add(node.exc.func.id)
    return raised - _OF_THE_PROGRAM


def test_pages_hold_every_word(api: ModuleType, objects: dict[str, Any]) -> None:
    """Nothing of a docstring is lost on the way to its page, whatever its form."""
    text = "\n".join(path.read_text() for path in PAGES.glob("*.md"))
    words = set(_words(text))
    for name, found in objects.items():
        lost = [word for word in _words(found.docstring.value) if word not in words]
        assert lost == [], f"docs/api lacks words of {name}"


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", re.sub(r"^\s*(Args|Raises|Returns|Attributes|Yields):$", "", text, flags=re.MULTILINE))


def test_a_name_that_is_not_there_is_noticed(api: ModuleType) -> None:
    with pytest.raises(KeyError):
        api.public_object("shared.workspace", "Workplace")


def test_what_the_page_imports_is_public(objects: dict[str, Any]) -> None:
    imports = r"^from ((?:shared|runtime|verifier|evaluator)\S*) import (\w+)$"
    used = re.findall(imports, (PAGES / "index.md").read_text(), re.MULTILINE)
    assert len(used) > 3
    assert {f"{module}.{name}" for module, name in used} <= set(objects)
