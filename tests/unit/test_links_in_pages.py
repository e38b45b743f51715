"""Links from page to page lead somewhere, to the heading that they name; the site lists every page."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def site_source(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module("site_source")


@cache
def _text(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@cache
def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    seen: Counter[str] = Counter()
    anchors = set()
    for heading in re.findall(r"^#{1,6} (.+)$", _text(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        anchors.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return anchors


def _broken(page: Path) -> list[str]:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", _text(page)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if "://" in link:
            continue
        if not target.is_file():
            broken.append(f"{link}: no such file")
        elif anchor and anchor not in _anchors(target):
            broken.append(f"{link}: no such heading")
    return broken


def test_links_lead_somewhere(site_source: ModuleType) -> None:
    assert {path: found for path in site_source.pages() if (found := _broken(ROOT / path))} == {}


@pytest.mark.parametrize("link", ["gone.md", "there.md#gone", "#gone"])
def test_a_broken_link_is_noticed(tmp_path: Path, link: str) -> None:
    (tmp_path / "there.md").write_text("# There\n")
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\nSee [it]({link}), [there](there.md#there), [here](#page).\n")
    assert len(_broken(page)) == 1


def test_the_site_has_every_page_and_what_they_link_to(site_source: ModuleType, tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "docs" / "site_source.py", tmp_path / "source"]
    subprocess.run(command, check=True, cwd=tmp_path)
    laid_out = {str(path.relative_to(tmp_path / "source")) for path in (tmp_path / "source").rglob("*.*")}
    assert laid_out >= {*site_source.pages(), "docs/flow.svg", "docs/manifest.schema.json"}
    assert {path: found for path in site_source.pages() if (found := _broken(tmp_path / "source" / path))} == {}


def test_a_page_that_the_site_does_not_list_is_an_error(
    site_source: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site_source, "listed", lambda: [])
    with pytest.raises(SystemExit, match=r"nav or in the repository, not in both: CHANGELOG\.md"):
        site_source.main()
