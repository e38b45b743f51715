"""The report in a real browser: no error, no request, nothing wider than a phone, controls that work."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest

from evaluator.report.report import OUTPUT, report
from shared.config import DeployConfig
from shared.data import open_dataset
from shared.metrics.confusion import UNLABELED
from shared.runs import Run
from shared.tasks.segmentation2d import ClassMask
from tests.support.browser import MISSING, chromium, visit
from tests.support.report_workspaces import (
    add_attribution,
    add_engine,
    classification,
    detection2d,
    detection3d,
    segmentation2d,
    segmentation3d,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.skipif(chromium() is None, reason=MISSING)

_PHONE = 390
# Tries what a reader would. The page unpacks points and labels beside its script: it is busy until they are drawn.
_READER = """async () => {
  const until = async (isSo) => { for (let turns = 0; turns < 3000 && !isSo(); turns++) await new Promise((done) => setTimeout(done, 20)); };
  const drawn = () => until(() => !document.querySelector(".stage[aria-busy=true]"));
  const page = document, found = {};
  const all = (selector) => [...page.querySelectorAll(selector)];
  const press = (text) => all(".explorer button").find(e => e.textContent === text).click();
  const change = (element, value) => { element.value = value; element.dispatchEvent(new Event("input", {bubbles: true})); element.dispatchEvent(new Event("change", {bubbles: true})); };
  const type = (key) => page.querySelector(".explorer").dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
  found.overflow = page.documentElement.scrollWidth - page.documentElement.clientWidth;
  found.background = getComputedStyle(page.body).backgroundColor;
  found.unreachable = all("nav a, input, select, button, summary, .scroll, .map").filter(e => e.tabIndex < 0).length;
  found.unnamed = all("svg[role=img]").filter(e => !e.getAttribute("aria-label")).length
    + all("button, input, select").filter(e => !(e.textContent || e.closest("label") || e.getAttribute("aria-label"))).length;
  found.smallest = Math.min(...all("svg.chart text").filter(e => e.closest("details:not([open])") === null)
    .map(e => { const at = e.getScreenCTM(); return parseFloat(getComputedStyle(e).fontSize) * Math.hypot(at.a, at.b); }));
  const wide = all(".scroll").filter(e => e.scrollWidth > e.clientWidth + 2 && e.querySelector("tbody th") && !e.closest("details:not([open])"));
  await until(() => wide.every(e => e.classList.contains("more-right")));
  found.cued = wide.every(e => e.classList.contains("more-right"));
  found.stays = wide.every(e => { e.scrollLeft = 50; return Math.abs(e.querySelector("tbody th").getBoundingClientRect().left - e.getBoundingClientRect().left) < 2; });
  found.frames = all(".thumbs button").length;
  found.images = all(".photo image").map(e => e.getBoundingClientRect().width > 0);
  found.title = page.querySelector(".stage h3").textContent;
  type("j");
  await drawn();
  found.next = page.querySelector(".stage h3").textContent !== found.title || page.querySelectorAll(".thumbs [aria-current=true]").length === 1;
  found.boxes = all(".stage .box").length;
  if (found.boxes) {
    page.querySelector(".stage .box.of-shown").dispatchEvent(new MouseEvent("click", {bubbles: true}));
    await drawn();
    found.detail = page.querySelector(".detail").textContent;
    change(page.querySelector("input[type=range]"), 1);
    await drawn();
    type("e");
    await drawn();
    found.error = page.querySelector(".detail").textContent;
    found.unsure = all(".stage .box.of-shown").length;
    change(page.querySelector("input[type=range]"), 0);
    await drawn();
  }
  const listed = (name) => all(".tools label").find(e => e.textContent.startsWith(name)).querySelector("select");
  const kinds = listed("Frames with");
  change(kinds, "wrong");
  found.wrong = all(".thumbs button").length;
  change(kinds, "");
  await drawn();
  if (page.querySelector(".photo canvas")) {
    found.views = {};
    for (const option of [...listed("Show").options].map(e => e.value)) {
      change(listed("Show"), option);
      await drawn();
      const canvas = page.querySelector(".photo canvas"), pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      const shades = {};
      for (let i = 0; i < pixels.length; i += 4) { const key = [...pixels.slice(i, i + 4)].join(" "); shades[key] = (shades[key] || 0) + 1; }
      found.views[option] = shades;
    }
  }
  if (page.querySelector(".map .box")) {
    const box = () => page.querySelector(".map .box").getBoundingClientRect().width;
    const before = box();
    page.querySelector(".map-buttons button").click();
    found.zoomed = box() > before;
  }
  if (page.querySelector(".map")) {
    press("3D");
    found.space = page.querySelector(".space canvas") !== null || page.querySelector(".holder").textContent;
    press("From above");
  }
  const graph = page.querySelector("details.graph");
  if (graph) {
    graph.open = true;
    await until(() => graph.querySelector(".graph-view"));
    found.nodes = graph.querySelectorAll(".node").length;
    graph.querySelector(".node").dispatchEvent(new KeyboardEvent("keydown", {key: "Enter"}));
    found.node = graph.querySelector(".detail").textContent;
    change(graph.querySelector("input[type=search]"), "conv7");
    found.hits = graph.querySelectorAll(".node:not(.faint)").length;
  }
  return found;
}"""  # noqa: E501


@pytest.fixture(scope="module", params=[detection3d, detection2d, classification], ids=lambda make: make.__name__)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = request.param(tmp_path_factory.mktemp("report"))
    if request.param is detection3d:
        add_engine(workspace)
        add_attribution(workspace)
    report(workspace.root, None, False)
    return workspace.artifact(OUTPUT)


def _wait_until_drawn(page: Page) -> None:
    """The page draws its frames once its text stands."""
    page.locator(".thumbs button").first.wait_for(state="attached")
    page.locator(".stage[aria-busy=false]").first.wait_for(state="attached")


def _read(page: Path, scheme: Literal["dark", "light"]) -> dict[str, Any]:
    """What the reader found."""
    with visit(page.as_uri(), width=_PHONE, height=800, scheme=scheme) as seen:
        _wait_until_drawn(seen.page)
        found: dict[str, Any] = seen.page.evaluate(_READER)
        assert seen.console == []
        assert seen.requests == []
    return found


@pytest.mark.parametrize(("scheme", "background"), [("dark", "rgb(15, 19, 24)"), ("light", "rgb(255, 255, 255)")])
def test_a_reader_on_a_phone(page: Path, scheme: Literal["dark", "light"], background: str) -> None:
    found = _read(page, scheme)
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
    found = _read(workspace.artifact(OUTPUT), "light")
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
    found = _read(workspace.artifact(OUTPUT), "dark")
    assert found["overflow"] == 0 and found["unreachable"] == 0 and found["unnamed"] == 0
    assert found["frames"] == 4 and found["space"] is True
    assert len(found["views"]["truth"]) >= 6, "the range image has the classes' colors, and nothing where no point is"


def test_errors_and_requests_would_be_seen(tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text('<!doctype html><title>x</title><img src="http://example.invalid/a.png"><script>lost();</script>')
    with visit(bad.as_uri()) as seen:
        assert any("lost is not defined" in line for line in seen.console)
        assert seen.requests == ["http://example.invalid/a.png"]


def test_the_page_can_not_ask_the_network(page: Path, tmp_path: Path) -> None:
    """Even content that slipped through could fetch nothing: the page forbids it to the browser."""
    broken = tmp_path / "broken.html"
    text = page.read_text(encoding="utf-8")
    broken.write_text(text.replace("<main", '<img src="http://example.invalid/a.png"><main', 1), encoding="utf-8")
    with visit(broken.as_uri()) as seen:
        _wait_until_drawn(seen.page)
        assert seen.requests == []
        assert any("Content Security Policy" in line for line in seen.console)


@pytest.mark.parametrize(
    "markup", ["<script>document.title = 'taken'</script>", "<img src=x onerror=\"document.title = 'taken'\">"]
)
def test_no_script_runs_but_our_own(page: Path, tmp_path: Path, markup: str) -> None:
    """Nor could a script that slipped through: the page names its own by its hash."""
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text(encoding="utf-8").replace("<main", f"{markup}<main", 1), encoding="utf-8")
    with visit(broken.as_uri()) as seen:
        _wait_until_drawn(seen.page)
        assert seen.page.title() != "taken"
        assert any("Content Security Policy" in line for line in seen.console)


def test_names_in_the_frames_are_shown_as_text(page: Path, tmp_path: Path) -> None:
    """Class names and titles are a stranger's: the script that draws them makes no element of them."""
    odd = tmp_path / "odd.html"
    text = page.read_text(encoding="utf-8")
    odd.write_text(text.replace('"title":"', '"title":"\\u003cimg src=x class=taken\\u003e'), encoding="utf-8")
    with visit(odd.as_uri()) as seen:
        _wait_until_drawn(seen.page)
        assert seen.page.locator(".explorer", has_text="<img src=x").count() > 0
        assert seen.page.locator("img.taken, img[src=x]").count() == 0 and seen.console == []
