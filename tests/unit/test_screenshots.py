"""The pictures of the report: small ones in the repository, and one line where they can't be taken."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def screenshots(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("screenshots")


def test_the_repository_has_them(screenshots: ModuleType) -> None:
    pages = (DOCS.parent / "README.md").read_text() + (DOCS / "results.md").read_text()
    for section in screenshots.SECTIONS:
        picture = DOCS / f"report-{section}.webp"
        assert picture.stat().st_size < 100_000
        assert Image.open(picture).width == 1280
        assert picture.name in pages


@pytest.mark.parametrize(
    ("there", "said"), [(False, "there is no .*; make centerpoint-all"), (True, "no Chromium here")]
)
def test_what_is_missing_is_said_in_a_line(
    screenshots: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    there: bool,
    said: str,
) -> None:
    report = tmp_path / "index.html"
    if there:
        report.touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["screenshots.py", str(report), str(tmp_path)])
    screenshots.main()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("no pictures of the report: ")
    assert re.search(said, line)
    assert list(tmp_path.glob("*.webp")) == []
