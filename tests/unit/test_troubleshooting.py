"""The messages that docs/troubleshooting.md explains are messages that the code has."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("shared", "exporter", "trt_builder", "runtime", "verifier", "evaluator", "demo")


def explained_messages() -> list[str]:
    """The messages in the first column of the tables: every cell that is code."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    cells = [line.split(" | ")[0].removeprefix("| ") for line in page.splitlines() if line.startswith("| `")]
    return [message for cell in cells for message in re.findall(r"`([^`]+)`", cell)]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Every text in the code, the parts between the placeholders of f-strings included."""
    found = []
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def test_there_are_messages() -> None:
    assert len(explained_messages()) > 80


@pytest.mark.parametrize("message", explained_messages())
def test_explained_messages_are_in_the_code(message: str, texts: list[str]) -> None:
    for part in message.split("…"):
        assert any(part.strip() in text for text in texts), f"no message of the code has '{part.strip()}'"


def test_the_page_explains_every_exit_code() -> None:
    from shared import errors

    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.exit_code for kind in kinds if issubclass(kind, errors.DeployError)}
    assert len(codes) == 6
    for code in codes:
        assert f"\n| {code} |" in page
