"""The site, opened from its folder without a server: pages, pictures and a search, and nothing is fetched."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.browser import MISSING, chromium, visit

SITE = Path(__file__).parents[2] / "work" / "site"
pytestmark = pytest.mark.skipif(not (SITE / "index.html").is_file(), reason="there is no work/site; run: make docs")


def test_nothing_is_fetched_from_elsewhere() -> None:
    fetched = re.compile(r"""<(?:script|img|iframe|link)[^>]*\s(?:src|href)=["']?(?:https?:)?//[^"'>\s]+""")
    found = {page.name: fetched.findall(page.read_text(encoding="utf-8")) for page in SITE.rglob("*.html")}
    assert len(found) > 20
    assert {name: links for name, links in found.items() if links} == {}


def test_pictures_and_folded_code_are_there() -> None:
    assert 'src="docs/report-frames.webp"' in (SITE / "index.html").read_text(encoding="utf-8")
    assert (SITE / "docs" / "report-frames.webp").is_file()
    extending = (SITE / "docs" / "extending.html").read_text(encoding="utf-8")
    assert re.search(r"<details>\s*<summary><code>clearance/geometry.py.*?<pre", extending, re.DOTALL)


@pytest.mark.skipif(chromium() is None, reason=MISSING)
def test_the_search_finds_pages() -> None:
    with visit(f"{(SITE / 'index.html').as_uri()}?q=page_locked") as seen:
        seen.page.locator(".md-search-result__link").first.wait_for(state="attached")
        results = [link.get_attribute("href") or "" for link in seen.page.locator(".md-search-result__link").all()]
    assert any(re.match(r"[^?]*docs/api/pipelines\.html", link) for link in results)
