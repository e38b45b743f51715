"""The report: what it tells, that it stands alone, when it is made again, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluator.baseline import set_baseline
from evaluator.cli import cli
from evaluator.measured import read_measured, write_measured
from evaluator.metrics import find_metric
from evaluator.regress import regress
from evaluator.report.blocks import Picture
from evaluator.report.report import OUTPUT, report
from evaluator.report.trend import draw
from shared.config import DeployConfig, resolved
from shared.errors import EnvironmentLacks, GateFailed, InputError, VerificationFailed
from shared.files import sha256_of_file
from shared.tasks.detection3d import Boxes3D
from shared.versions import tag
from shared.workspace import Workspace
from tests.support.report_workspaces import (
    add_attribution,
    add_engine,
    classification,
    detection2d,
    detection3d,
    write_points,
)
from tests.support.workspaces import add_run, make_workspace


class _Page(HTMLParser):
    """The page's text, its headings, its frames, and everything that it refers to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.frames: list[dict[str, Any]] = []
        self._is_data = False
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append(tag)
        self._is_data = attributes.get("type") == "application/json"
        if tag == "section":
            self.sections.append(attributes["id"] or "")
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.references += [value for name, value in attrs if name in ("src", "href", "xlink:href") and value]

    def handle_data(self, data: str) -> None:
        if self._is_data:
            self.frames += json.loads(data).get("frames", [])
        else:
            self.words.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._is_data = False


def _report(workspace: Workspace) -> _Page:
    report(workspace.root, None, False)
    return _Page(workspace.artifact(OUTPUT))


def test_everything_that_is_known_is_told(tmp_path: Path) -> None:
    workspace = detection3d(tmp_path, gates=("mAP < 0.01",))
    add_engine(workspace)
    add_attribution(workspace)
    page = _report(workspace)
    assert page.sections == [
        "summary", "metrics", "frames", "verification", "attribution", "latency", "engines", "graphs", "origin"
    ]  # fmt: skip
    for told in (
        "all 5 checks",  # three comparisons, and one gate of two runs
        "raw outputs of 2 samples, 96 results of 6 samples",
        "onnx-cpu fails if mAP < 0.01",
        "Confusion of onnx-cpu",
        "orientation: how far headings of hits are off [rad]",
        "Over the score threshold: centers within 4 m",
        "By distance from the vehicle",
        "nuScenes AP per range",
        "Error histograms, pytorch-cpu → onnx-cpu",
        "Responsible: head.",
        "The bottleneck is model",
        "head (trt10.8-sm90-fp16) fp16, TensorRT 10.8.0, NVIDIA H200, 12.0 MB",
        "5 more layers of head",
        "The deploy config",
    ):
        assert told in page.text, told
    assert {frame["token"] for frame in page.frames} == {f"token{index}" for index in range(6)}
    assert all(frame["media"]["cloud"]["count"] for frame in page.frames)
    assert page.tags.count("polyline") >= 2 * 2 * 4  # both classes and runs, four distances
    assert workspace.artifact(OUTPUT).stat().st_size < 10_000_000


@pytest.mark.parametrize("make", [detection3d, detection2d, classification])
def test_nothing_is_fetched_and_every_anchor_is_there(tmp_path: Path, make: object) -> None:
    page = _report(make(tmp_path))  # type: ignore[operator]
    assert "frames" in page.sections and all(frame["media"] for frame in page.frames)
    photos = [photo["uri"] for frame in page.frames for photo in _photos(frame["media"])]
    assert all(uri.startswith("data:image/jpeg;base64,") for uri in photos)
    assert photos or make is detection3d
    assert all(reference.startswith(("#", "data:")) for reference in page.references)
    assert {reference[1:] for reference in page.references if reference.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_worst_frame_comes_first(tmp_path: Path) -> None:
    lost = {3: Boxes3D.build(np.full((2, 3), 60.0), np.ones((2, 3)), np.zeros(2), labels=[0, 1], scores=[0.9, 0.9])}
    workspace = make_workspace(tmp_path)
    for index in range(6):
        np.zeros((10, 5), np.float32).tofile(tmp_path / "data" / f"{index}.bin")
    for backend in ("pytorch", "onnx"):
        add_run(workspace, backend, boxes=lost)
    _evaluated(workspace)
    frames = {frame["token"]: frame for frame in _report(workspace).frames}
    assert next(iter(frames)) == "token3"
    assert frames["token3"]["score"] == 0.0
    assert frames["token3"]["runs"][0]["match"] == [-1, -1]
    assert max(frame["score"] for frame in frames.values()) == 1.0
    images = detection2d(tmp_path / "2d")
    assert _report(images).frames[0]["token"] == "3"
    found = images.manifest().results["metrics"]
    assert all(set(numbers) == set(find_metric("detection2d").headline_names([])) for numbers in found.values())


def _photos(media: dict[str, Any]) -> list[dict[str, Any]]:
    return [media["photo"]] if "photo" in media else media["photos"]


def test_runs_are_laid_side_by_side(tmp_path: Path) -> None:
    moved = Boxes3D.build(np.full((1, 3), 60.0), np.ones((1, 3)), np.zeros(1), labels=[0], scores=[0.9])
    workspace = make_workspace(tmp_path)
    write_points(tmp_path / "data")
    add_run(workspace, "pytorch")
    add_run(workspace, "onnx", boxes={3: moved})
    _evaluated(workspace)
    for frame in _report(workspace).frames:
        shown, other = frame["runs"]
        if frame["token"] == "token3":
            assert shown["partner"] == [-1] and set(other["partner"]) == {-1}
        else:
            assert shown["partner"] == other["partner"] == list(range(len(shown["scores"])))


def _evaluated(workspace: Workspace, *gates: str) -> None:
    from evaluator.evaluate import evaluate

    evaluate(workspace.root, None, False, gates)


def test_the_text_stands_before_what_takes_long_to_read(tmp_path: Path) -> None:
    """A browser shows what it has read while it reads the megabytes of frames behind it."""
    workspace = detection3d(tmp_path)
    _report(workspace)
    text = workspace.artifact(OUTPUT).read_text(encoding="utf-8")
    assert text.index("</main>") < text.index('type="application/json"') < text.index("<script>")
    assert len(text[: text.index("</main>")]) < 500_000


def test_a_task_may_draw_its_frames_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def picture(material: Any, position: int, key: str, title: str) -> Picture:
        return Picture(
            key, title, f'<svg viewBox="0 0 1 1"><g class="layer-a"><text>{position}</text></g></svg>', [("a", "A")]
        )

    monkeypatch.setattr("evaluator.report.tasks.detection3d.picture", picture)
    frames = _report(detection3d(tmp_path)).frames
    assert len(frames) == 6
    assert all(frame["svg"].startswith("<svg") and frame["layers"] == [["a", "A"]] for frame in frames)


def test_trend_over_versions(tmp_path: Path) -> None:
    workspace = detection3d(tmp_path)
    assert "trend" not in _report(workspace).sections
    set_baseline(workspace.root, "v1", "", move=False, file=None)
    add_run(workspace, "onnx", boxes={0: Boxes3D.empty(), 1: Boxes3D.empty()})
    _evaluated(workspace)
    tag(workspace.root, "v2")
    add_run(workspace, "onnx", boxes={0: Boxes3D.empty()})
    _evaluated(workspace)
    page = _report(workspace)
    assert "trend" in page.sections
    table = page.text[page.text.index("Versions of this workspace, oldest first") :]
    values = [float(value) for value in re.findall(r"onnx-cpu fp32 (0\.\d{4})", table)]
    assert len(values) == 3 and values[1] < values[2] < values[0]
    assert "v1 (baseline)" in table
    draw(workspace.root, ("mAP",), tmp_path / "trend.svg")
    # Two charts, metric and latency, with the baseline marked in both.
    assert (tmp_path / "trend.svg").read_text().count(">baseline</text>") == 2


def test_what_got_worse_than_the_baseline(tmp_path: Path) -> None:
    workspace = detection3d(tmp_path, noise=1e-3)
    file = tmp_path / "v1.json"
    set_baseline(workspace.root, "v1", "", move=False, file=file)
    regress(workspace.root, None, "v1")
    page = _report(workspace)
    assert "regressions" in page.sections and "baseline v1 passed" in page.text

    before = read_measured(file)
    noise = [each for each in before.quantities if each.name == "lowest SNR"]
    noise[0].value += 20
    write_measured(file, before)
    with pytest.raises(GateFailed, match="lowest SNR is worse by 20"):
        regress(workspace.root, None, str(file))
    page = _report(workspace)
    assert "baseline v1 FAILED" in page.text and "REGRESSION" in page.text

    write_measured(file, before.model_copy(update={"scores": {}, "latencies": {}, "quantities": []}))
    with pytest.raises(InputError, match="nothing can be compared"):
        regress(workspace.root, None, str(file))
    assert "baseline v1 not comparable" in _report(workspace).text


def test_what_failed_is_said_first(tmp_path: Path) -> None:
    with pytest.raises(GateFailed):
        detection3d(tmp_path / "gate", gates=("mAP < 0.999999",))
    page = _report(Workspace.open(tmp_path / "gate" / "work"))
    assert "Verdict FAILED" in page.text and "gate onnx-cpu fails if mAP < 0.999999" in page.text

    with pytest.raises(VerificationFailed):
        detection3d(tmp_path / "noise", noise=1.0)
    workspace = Workspace.open(tmp_path / "noise" / "work")
    _evaluated(workspace)
    page = _report(workspace)
    assert "Verdict FAILED" in page.text and "verification pytorch-cpu → onnx-cpu: " in page.text


def test_up_to_date_until_something_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    workspace = detection3d(tmp_path)
    caplog.set_level("INFO")
    report(workspace.root, None, False)
    first = sha256_of_file(workspace.path(OUTPUT))
    caplog.clear()
    report(workspace.root, None, False)
    assert "report: up to date" in caplog.text
    caplog.clear()
    report(workspace.root, None, force=True)
    assert "up to date" not in caplog.text
    assert sha256_of_file(workspace.path(OUTPUT)) == first, "the same workspace, another page"
    add_engine(workspace, times=False)
    page = _report(workspace)
    assert "engines" in page.sections and "The layers were not timed" in page.text


def test_without_the_data_it_says_so_and_has_no_pictures(tmp_path: Path) -> None:
    workspace = detection3d(tmp_path)
    moved = tmp_path / "elsewhere"
    shutil.move(tmp_path / "data", moved)
    page = _report(workspace)
    assert "No frames: " in page.text and not page.frames
    assert "no table of confusion: " in page.text and "nuScenes AP per range" in page.text

    report(workspace.root, moved, False)
    assert _Page(workspace.artifact(OUTPUT)).frames

    other = detection3d(tmp_path / "other")
    shutil.rmtree(tmp_path / "other" / "data")
    make_workspace(tmp_path / "third", samples=3)
    with pytest.raises(InputError, match="other data"):
        report(other.root, tmp_path / "third" / "data", False)


def test_without_point_files_the_rest_is_there(tmp_path: Path) -> None:
    page = _report(detection3d(tmp_path, points=False))
    assert "No points and photos of 6 frames: " in page.text and "Confusion of onnx-cpu" in page.text
    assert page.frames and not any("media" in frame for frame in page.frames)


def test_a_broken_file_costs_one_frame_its_picture(tmp_path: Path) -> None:
    workspace = detection3d(tmp_path)
    (tmp_path / "data" / "2.bin").write_bytes(b"half")
    page = _report(workspace)
    assert "No points and photos of 1 frame: " in page.text and "2.bin" in page.text
    assert [frame["token"] for frame in page.frames if "media" not in frame] == ["token2"]


def test_runs_with_nothing_in_them(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    nothing = dict.fromkeys(range(6), Boxes3D.empty())
    add_run(workspace, "onnx", boxes=nothing)
    _evaluated(workspace)
    assert "not judged" in _report(workspace).text


def test_names_are_text_not_markup(tmp_path: Path) -> None:
    workspace = detection3d(tmp_path)
    stage = workspace.stage("odd", tool="shared")
    stage.skip("<script>alert(1)</script>")
    page = workspace.path(OUTPUT)
    report(workspace.root, None, False)
    assert "<script>alert(1)" not in page.read_text()
    assert "<script>alert(1)" in _Page(page).text


def test_evaluation_switched_off(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    config = DeployConfig.model_validate(workspace.config() | {"evaluation": {"enabled": False}})
    with workspace.stage("export", tool="shared") as stage:
        stage.config(resolved(config))
    _evaluated(workspace)
    page = _report(workspace)
    assert page.sections == ["summary", "origin"]


def test_not_evaluated(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    add_run(workspace, "onnx")
    with pytest.raises(InputError, match="nothing was evaluated here") as error:
        report(workspace.root, None, False)
    assert "evaluator evaluate" in (error.value.hint or "")


def test_verification_of_earlier_runs_counts_for_nothing(tmp_path: Path) -> None:
    workspace = detection3d(tmp_path)
    add_run(workspace, "onnx", boxes={0: Boxes3D.empty()})
    _evaluated(workspace)
    page = _report(workspace)
    assert "Verdict FAILED" in page.text and "of another version of runs/onnx-cpu" in page.text


def test_half_a_run_leaves_the_one_before_in_the_report(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    workspace = detection3d(tmp_path)
    with pytest.raises(InputError, match="not finished"):
        add_run(workspace, "onnx", finish=False, dataset="f" * 64)
    report(workspace.root, None, False)
    assert "run:onnx-cpu: a later attempt did not end well" in caplog.text


def test_evaluation_of_earlier_runs(tmp_path: Path) -> None:
    workspace = detection3d(tmp_path)
    add_run(workspace, "onnx", boxes={0: Boxes3D.empty()})
    with pytest.raises(InputError, match="is of another version of runs/onnx-cpu") as error:
        report(workspace.root, None, False)
    assert "evaluate again" in (error.value.hint or "")


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (tmp_path, make_workspace(tmp_path / "made").root):
        with pytest.raises(SystemExit) as stop:
            cli.main(["report", "--work", str(folder)])
        assert stop.value.code == 3
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.filterwarnings("error")  # what Rerun can't log it only warns about
@pytest.mark.parametrize("make", [detection3d, detection2d, classification])
def test_rerun_recording(tmp_path: Path, make: object) -> None:
    pytest.importorskip("rerun", reason="rerun-sdk is not installed; run: pip install 'awml-deploy[rerun]'")
    from rerun.chunk import RrdReader

    file = tmp_path / "boxes.rrd"
    text = report(make(tmp_path / "made").root, None, False, file)  # type: ignore[operator]
    assert f"Rerun recording: {file}" in text and " of " in text
    entities = {str(chunk.entity_path) for chunk in RrdReader(file).stream()}
    assert any(path.startswith(("/points", "/image")) for path in entities)


def test_rerun_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    workspace = detection3d(tmp_path)
    monkeypatch.setattr("evaluator.report.rerun_file.rr", _unloaded("rerun"))
    with pytest.raises(EnvironmentLacks, match="rerun"):
        report(workspace.root, None, False, tmp_path / "boxes.rrd")
    assert not (tmp_path / "boxes.rrd").exists()


def _unloaded(name: str) -> object:
    from shared.lazy import lazy_import

    return lazy_import(name, install="pip install it")
