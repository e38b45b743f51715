"""The site, opened from its folder without a server: pages, pictures and a search, and nothing is fetched."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SITE = Path(__file__).parents[2] / "work" / "site"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
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


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here; install the package chromium to run this")
def test_the_search_finds_pages(tmp_path: Path) -> None:
    assert BROWSER is not None
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--virtual-time-budget=20000",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path}", "--dump-dom",
        f"{(SITE / 'index.html').as_uri()}?q=page_locked",
    ]  # fmt: skip
    page = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout
    results = re.findall(r'<a href="([^"?]+)[^"]*" class="md-search-result__link"', page)
    assert any(link.endswith("docs/api/pipelines.html") for link in results)
