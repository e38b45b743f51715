"""The report in a real browser: no error, no request, nothing wider than a phone, controls that work."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluator.report.report import OUTPUT, report
from shared.config import DeployConfig
from shared.data import open_dataset
from shared.metrics.confusion import UNLABELED
from shared.runs import Run
from shared.tasks.segmentation2d import ClassMask
from tests.support.report_workspaces import (
    add_attribution,
    add_engine,
    classification,
    detection2d,
    detection3d,
    segmentation2d,
    segmentation3d,
)

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here; install the package chromium to run this")

_FLAGS = [
    "--headless", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--allow-file-access-from-files", "--enable-logging=stderr", "--virtual-time-budget=20000",
    "--host-resolver-rules=MAP * ~NOTFOUND",
]  # fmt: skip
_PHONE = 390

# Loads the report in a frame as wide as a phone, and tries what a reader would.
_READER = """<!doctype html><title>reader</title>
<iframe id="page" src="{source}" style="width:{width}px;height:800px;border:0"></iframe><pre id="out"></pre>
<script>
const wait = () => new Promise(done => setTimeout(done, 150));
addEventListener("load", async () => {{
  const page = document.getElementById("page").contentDocument, found = {{}};
  while (!page.querySelector(".explorer .thumbs button")) await wait();
  const all = (selector) => [...page.querySelectorAll(selector)];
  const press = (text) => all(".explorer button").find(e => e.textContent === text).click();
  const change = (element, value) => {{ element.value = value; element.dispatchEvent(new Event("input", {{bubbles: true}})); element.dispatchEvent(new Event("change", {{bubbles: true}})); }};
  await wait();
  found.overflow = page.documentElement.scrollWidth - page.documentElement.clientWidth;
  found.background = getComputedStyle(page.body).backgroundColor;
  found.unreachable = all("nav a, input, select, button, summary, .scroll, .map").filter(e => e.tabIndex < 0).length;
  found.unnamed = all("svg[role=img]").filter(e => !e.getAttribute("aria-label")).length
    + all("button, input, select").filter(e => !(e.textContent || e.closest("label") || e.getAttribute("aria-label"))).length;
  found.smallest = Math.min(...all("svg.chart text").filter(e => e.closest("details:not([open])") === null)
    .map(e => {{ const at = e.getScreenCTM(); return parseFloat(getComputedStyle(e).fontSize) * Math.hypot(at.a, at.b); }}));
  const wide = all(".scroll").filter(e => e.scrollWidth > e.clientWidth + 2 && e.querySelector("tbody th") && !e.closest("details:not([open])"));
  found.cued = wide.every(e => e.classList.contains("more-right"));
  found.stays = wide.every(e => {{ e.scrollLeft = 50; return Math.abs(e.querySelector("tbody th").getBoundingClientRect().left - e.getBoundingClientRect().left) < 2; }});
  found.frames = all(".thumbs button").length;
  found.images = all(".photo image").map(e => e.getBoundingClientRect().width > 0);
  found.title = page.querySelector(".stage h3").textContent;
  page.querySelector(".explorer").dispatchEvent(new KeyboardEvent("keydown", {{key: "j", bubbles: true}}));
  await wait();
  found.next = page.querySelector(".stage h3").textContent !== found.title || page.querySelectorAll(".thumbs [aria-current=true]").length === 1;
  found.boxes = all(".stage .box").length;
  if (found.boxes) {{
    page.querySelector(".stage .box.of-shown").dispatchEvent(new MouseEvent("click", {{bubbles: true}}));
    await wait();
    found.detail = page.querySelector(".detail").textContent;
    change(page.querySelector("input[type=range]"), 1);
    await wait();
    page.querySelector(".explorer").dispatchEvent(new KeyboardEvent("keydown", {{key: "e", bubbles: true}}));
    await wait();
    found.error = page.querySelector(".detail").textContent;
    found.unsure = all(".stage .box.of-shown").length;
    change(page.querySelector("input[type=range]"), 0);
  }}
  const listed = (name) => all(".tools label").find(e => e.textContent.startsWith(name)).querySelector("select");
  const kinds = listed("Frames with");
  change(kinds, "wrong");
  await wait();
  found.wrong = all(".thumbs button").length;
  change(kinds, "");
  if (page.querySelector(".photo canvas")) {{
    found.views = {{}};
    for (const option of [...listed("Show").options].map(e => e.value)) {{
      change(listed("Show"), option);
      await wait(); await wait();
      const canvas = page.querySelector(".photo canvas"), pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      const shades = {{}};
      for (let i = 0; i < pixels.length; i += 4) {{ const key = [...pixels.slice(i, i + 4)].join(" "); shades[key] = (shades[key] || 0) + 1; }}
      found.views[option] = shades;
    }}
  }}
  if (page.querySelector(".map .box")) {{
    const box = () => page.querySelector(".map .box").getBoundingClientRect().width;
    const before = box();
    page.querySelector(".map-buttons button").click();
    found.zoomed = box() > before;
  }}
  if (page.querySelector(".map")) {{
    press("3D");
    await wait(); await wait();
    found.space = page.querySelector(".space canvas") !== null || page.querySelector(".holder").textContent;
    press("From above");
  }}
  const graph = page.querySelector("details.graph");
  if (graph) {{
    graph.open = true;
    while (!graph.querySelector(".graph-view")) await wait();
    found.nodes = graph.querySelectorAll(".node").length;
    graph.querySelector(".node").dispatchEvent(new KeyboardEvent("keydown", {{key: "Enter"}}));
    found.node = graph.querySelector(".detail").textContent;
    change(graph.querySelector("input[type=search]"), "conv7");
    found.hits = graph.querySelectorAll(".node:not(.faint)").length;
  }}
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
        timeout=600,
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


def _read(page: Path, folder: Path, scheme: int) -> dict[str, Any]:
    """What the reader found."""
    reader = folder / "reader.html"
    reader.write_text(_READER.format(source=page.as_uri(), width=_PHONE))
    visit = _visit(reader, folder, f"--blink-settings=preferredColorScheme={scheme}")
    assert visit.console == []
    assert visit.requests == []
    match = re.search(r'<pre id="out">(.*?)</pre>', visit.dom)
    assert match is not None and match[1], "the page did not load"
    found: dict[str, Any] = json.loads(match[1])
    return found


@pytest.mark.parametrize(("scheme", "background"), [(0, "rgb(15, 19, 24)"), (1, "rgb(255, 255, 255)")])
def test_a_reader_on_a_phone(page: Path, tmp_path: Path, scheme: int, background: str) -> None:
    found = _read(page, tmp_path, scheme)
    assert found["overflow"] == 0, "wider than the phone"
    assert found["background"] == background
    assert found["unreachable"] == 0 and found["unnamed"] == 0
    assert all(found["images"])
    assert found["smallest"] > 9, "letters too small to read"
    assert found["cued"] and found["stays"], "a wide table shows that it goes on, and keeps its first column"
    assert found["frames"] >= 4 and found["next"]
    assert found["wrong"] <= found["frames"]
    if "detail" in found:
        assert re.search(r"score \d\.\d{3} · (found|wrong)", found["detail"])
        assert "missed · label" in found["error"], "at that score all labels are missed, and the key e goes to one"
        assert found["unsure"] == 0, "no score reaches 1"
    if "nodes" in found:
        assert (found["nodes"], found["hits"]) == (22, 1)
        assert found["node"] == "CaskConvolution · conv0 · fp16 · 0.1000 ms"
    assert found.get("zoomed", True) and found.get("space", True) is True


def test_labels_are_colored(tmp_path: Path) -> None:
    workspace = segmentation2d(tmp_path / "2d")
    report(workspace.root, None, False)
    found = _read(workspace.artifact(OUTPUT), tmp_path, 1)
    assert found["overflow"] == 0 and found["unreachable"] == 0 and found["unnamed"] == 0
    views = found["views"]
    assert list(views) == ["shown", "truth", "wrong", "other", "differs"]
    unjudged = 15 * 10
    assert sum(views["truth"].values()) == 15 * 40 and views["truth"]["143 153 166 255"] == unjudged
    evaluation = json.loads((workspace.root / "evaluation/onnx-cpu.json").read_text())["metrics"]
    second = sorted(range(4), key=lambda index: evaluation["frame_mIoU"][index])[1]  # the reader went on once
    given = Run.open(workspace.path("runs/onnx-cpu")).predictions(second, ClassMask).labels
    dataset = open_dataset(DeployConfig.model_validate(workspace.config()).data, task="segmentation2d")
    truth = dataset.sample(second).mask.read(np.array([0, 1, 2, -1]))
    wrong = int((given != truth)[truth != UNLABELED].sum())
    assert views["wrong"] == {
        "200 30 58 255": wrong,
        "143 153 166 255": unjudged,
        "195 202 211 255": 15 * 30 - wrong,
    }


def test_points_are_colored_by_their_label(tmp_path: Path) -> None:
    workspace = segmentation3d(tmp_path / "3d")
    report(workspace.root, None, False)
    found = _read(workspace.artifact(OUTPUT), tmp_path, 0)
    assert found["overflow"] == 0 and found["unreachable"] == 0 and found["unnamed"] == 0
    assert found["frames"] == 4 and found["space"] is True
    assert len(found["views"]["truth"]) >= 6, "the range image has the classes' colors, and nothing where no point is"


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


@pytest.mark.parametrize(
    "markup", ["<script>document.title = 'taken'</script>", "<img src=x onerror=\"document.title = 'taken'\">"]
)
def test_no_script_runs_but_our_own(page: Path, tmp_path: Path, markup: str) -> None:
    """Nor could a script that slipped through: the page names its own by its hash."""
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text(encoding="utf-8").replace("<main", f"{markup}<main", 1), encoding="utf-8")
    visit = _visit(broken, tmp_path)
    assert "<title>taken" not in visit.dom and 'aria-current="true"' in visit.dom
    assert any("Content Security Policy" in line for line in visit.console)


def test_names_in_the_frames_are_shown_as_text(page: Path, tmp_path: Path) -> None:
    """Class names and titles are a stranger's: the script that draws them makes no element of them."""
    odd = tmp_path / "odd.html"
    text = page.read_text(encoding="utf-8")
    odd.write_text(text.replace('"title":"', '"title":"\\u003cimg src=x class=taken\\u003e'), encoding="utf-8")
    visit = _visit(odd, tmp_path)
    assert "&lt;img src=x class=taken&gt;" in visit.dom
    assert "<img src=x" not in visit.dom and 'class="taken"' not in visit.dom and visit.console == []
