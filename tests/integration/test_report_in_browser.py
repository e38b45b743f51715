"""The report in a real browser: no error, no request, nothing wider than a phone, controls that work."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from evaluator.report.report import OUTPUT, report
from tests.support.report_workspaces import add_attribution, add_engine, classification, detection2d, detection3d

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here; install the package chromium to run this")

_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--allow-file-access-from-files", "--enable-logging=stderr", "--virtual-time-budget=4000",
    "--host-resolver-rules=MAP * ~NOTFOUND",
]  # fmt: skip
_PHONE = 390

# Loads the report in a frame as wide as a phone, and tries what a reader would.
_READER = """<!doctype html><title>reader</title>
<iframe id="page" src="{source}" style="width:{width}px;height:800px;border:0"></iframe><pre id="out"></pre>
<script>addEventListener("load", () => {{
  const page = document.getElementById("page").contentDocument, found = {{}};
  found.overflow = page.documentElement.scrollWidth - page.documentElement.clientWidth;
  found.background = getComputedStyle(page.body).backgroundColor;
  found.unreachable = [...page.querySelectorAll("nav a, input, summary, .scroll")].filter(e => e.tabIndex < 0).length;
  found.unnamed = [...page.querySelectorAll("svg[role=img]")].filter(e => !e.getAttribute("aria-label")).length;
  found.images = [...page.querySelectorAll("image")].map(e => e.getBoundingClientRect().width > 0);
  found.smallest = Math.min(...[...page.querySelectorAll("svg.chart text")].filter(e => e.closest("details:not([open])") === null)
    .map(e => e.getBoundingClientRect().height));
  const box = page.querySelector("[data-layer=truth]"), layer = page.querySelector(".picture svg .layer-truth");
  if (box) {{ box.click(); found.hidden = getComputedStyle(layer).display; box.click(); found.shown = getComputedStyle(layer).display; }}
  const views = page.querySelectorAll("[data-view]"), svg = page.querySelector(".picture svg");
  if (views.length) {{ const whole = svg.getAttribute("viewBox"); views[1].click(); found.zoomed = svg.getAttribute("viewBox") !== whole; }}
  document.getElementById("out").textContent = JSON.stringify(found);
}});</script>"""  # noqa: E501


@dataclass(frozen=True)
class _Visit:
    """What a visit of a page left: its DOM, its console, and what it asked the network for."""

    dom: str
    console: list[str]
    requests: list[str]


def _visit(page: Path, folder: Path, *flags: str) -> _Visit:
    assert BROWSER is not None
    log = folder / "net.json"
    answer = subprocess.run(
        [
            BROWSER,
            *_FLAGS,
            f"--user-data-dir={folder / 'profile'}",
            f"--log-net-log={log}",
            *flags,
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    console = [line for line in answer.stderr.splitlines() if ":CONSOLE" in line]
    parameters = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    # The browser asks on its own behalf too; what a page asks for has the page as its initiator.
    asked = [entry["url"] for entry in parameters if entry.get("initiator", "not an origin") != "not an origin"]
    return _Visit(answer.stdout, console, [url for url in asked if url.startswith(("http", "ws", "ftp"))])


@pytest.fixture(scope="module", params=[detection3d, detection2d, classification], ids=lambda make: make.__name__)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = request.param(tmp_path_factory.mktemp("report"))
    if request.param is detection3d:
        add_engine(workspace)
        add_attribution(workspace)
    report(workspace.root, None, False)
    return workspace.artifact(OUTPUT)


@pytest.mark.parametrize(("scheme", "background"), [(0, "rgb(15, 19, 24)"), (1, "rgb(255, 255, 255)")])
def test_a_reader_on_a_phone(page: Path, tmp_path: Path, scheme: int, background: str) -> None:
    reader = tmp_path / "reader.html"
    reader.write_text(_READER.format(source=page.as_uri(), width=_PHONE))
    visit = _visit(reader, tmp_path, f"--blink-settings=preferredColorScheme={scheme}")
    assert visit.console == []
    assert visit.requests == []
    match = re.search(r'<pre id="out">(.*?)</pre>', visit.dom)
    assert match is not None and match[1], "the page did not load"
    found = json.loads(match[1])
    assert found["overflow"] == 0, "wider than the phone"
    assert found["background"] == background
    assert found["unreachable"] == 0 and found["unnamed"] == 0
    assert found["images"] and all(found["images"])
    assert found["smallest"] > 9, "letters too small to read"
    if "hidden" in found:
        assert (found["hidden"], found["shown"]) == ("none", "inline")
    assert found.get("zoomed", True)


def test_errors_and_requests_would_be_seen(tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text('<!doctype html><title>x</title><img src="http://example.invalid/a.png"><script>lost();</script>')
    visit = _visit(bad, tmp_path)
    assert any("lost is not defined" in line for line in visit.console)
    assert visit.requests == ["http://example.invalid/a.png"]


def test_the_page_can_not_ask_the_network(page: Path, tmp_path: Path) -> None:
    """Even content that slipped through could fetch nothing: the page forbids it to the browser."""
    broken = tmp_path / "broken.html"
    text = page.read_text(encoding="utf-8")
    broken.write_text(text.replace("<main", '<img src="http://example.invalid/a.png"><main', 1), encoding="utf-8")
    visit = _visit(broken, tmp_path)
    assert visit.requests == []
    assert any("Content Security Policy" in line for line in visit.console)
