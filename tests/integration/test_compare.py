"""evaluator compare and history: what differs, how sure that is, and what can't be compared."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluator.compare import compare_subjects
from evaluator.evaluate import evaluate
from evaluator.history import history
from evaluator.stored import stored_replicates
from shared.errors import InputError, UsageError
from shared.manifest import update_manifest
from shared.runs import Run
from shared.sample_table import write_samples
from shared.tasks.detection3d import Boxes3D
from shared.versions import rollback, tag
from shared.workspace import Workspace
from tests.support.workspaces import add_run, good_boxes, make_workspace

FRAMES = 12


def _boxes(workspace: Workspace, shift: float, frames: int = FRAMES) -> dict[int, Boxes3D]:
    """Good predictions, off by ``shift`` meters along x and y."""
    found = {index: good_boxes(workspace, index) for index in range(frames)}
    return {index: replace(boxes, centers=boxes.centers + np.float32(shift)) for index, boxes in found.items()}


def _run(workspace: Workspace, backend: str, shift: float = 0.0, frames: int = FRAMES) -> None:
    add_run(workspace, backend, samples=frames, boxes=_boxes(workspace, shift, frames))


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Version v1 with a good and a bad run; v2 with the bad one repaired; now: bad again. Not to be written to."""
    workspace = make_workspace(tmp_path_factory.mktemp("tagged"), samples=FRAMES)
    _run(workspace, "pytorch")
    for version, shift in (("v1", 0.4), ("v2", 0.0), (None, 0.4)):
        _run(workspace, "onnx", shift)
        evaluate(workspace.root, None, False)
        if version:
            tag(workspace.root, version)
    return workspace


def _compare(*subjects: str, work: Path | None = None) -> tuple[str, dict[str, Any]]:
    output = Path(str(work)).parent / "out" / "compare.json"
    text = compare_subjects(subjects, work, output)
    return text, json.loads(output.read_text())


def test_versions_are_compared_frame_by_frame(tagged: Workspace) -> None:
    text, result = _compare("@v1:onnx-cpu", "@v2:onnx-cpu", ":onnx-cpu", work=tagged.root)
    assert [subject["label"] for subject in result["subjects"]] == ["@v1:onnx-cpu", "@v2:onnx-cpu", "onnx-cpu"]
    repaired, same = result["differences"]["@v2:onnx-cpu"], result["differences"]["onnx-cpu"]
    assert repaired["paired"] and repaired["metrics"]["mAP"]["verdict"] == "higher"
    assert repaired["metrics"]["mAP"]["interval"]["low"] > 0
    # The interval is that of the paired replicates, not of two that were drawn apart.
    stored = stored_replicates(tagged, "pytorch-cpu")["mAP"] - stored_replicates(tagged, "onnx-cpu")["mAP"]
    bounds = repaired["metrics"]["mAP"]["interval"]
    assert [bounds["low"], bounds["high"]] == pytest.approx(np.quantile(stored, [0.025, 0.975]).tolist())
    assert same["metrics"]["mAP"] == {
        "difference": 0.0,
        "interval": {"low": 0.0, "high": 0.0},
        "verdict": "no difference",
    }
    assert repaired["latency"] == same["latency"] == "no difference"
    first = result["subjects"][0]
    assert first["classes"]["car"]["AP"] < result["subjects"][1]["classes"]["car"]["AP"]
    assert first["precision"] == "fp32" and first["version"] == "v1"
    for expected in ("same frames", "pedestrian", "precision", "no difference", "higher", "latency median"):
        assert expected in text


def test_a_workspace_stands_for_all_its_runs(tagged: Workspace) -> None:
    _, result = _compare(str(tagged.root), work=tagged.root)
    assert [subject["run"] for subject in result["subjects"]] == ["onnx-cpu", "pytorch-cpu"]
    assert _compare(work=tagged.root)[1] == result
    with pytest.raises(UsageError, match="nothing to compare"):
        compare_subjects((), None, None)


def test_workspaces_of_other_frames_are_compared_by_their_own_intervals(tagged: Workspace, tmp_path: Path) -> None:
    other = make_workspace(tmp_path, samples=FRAMES + 2)
    _run(other, "onnx", 0.4, FRAMES + 2)
    evaluate(other.root, None, False)
    _, result = _compare(f"{tagged.root}:pytorch-cpu", str(other.root), work=tagged.root)
    (found,) = result["differences"].values()
    assert not found["paired"]
    metric = found["metrics"]["mAP"]
    assert metric["interval"] is None and metric["verdict"] == "lower"
    intervals = [subject["intervals"]["mAP"] for subject in result["subjects"]]
    assert intervals[1]["high"] < intervals[0]["low"]
    assert {subject["workspace"] for subject in result["subjects"]} == {str(tagged.root), str(other.root)}


def test_numbers_that_depend_on_other_settings_are_not_judged(tagged: Workspace, tmp_path: Path) -> None:
    shutil.copytree(tagged.root, tmp_path / "work")
    evaluate(tmp_path / "work", t4={"compat": "awml", "min_points": "100"})
    text, result = _compare("@v1:onnx-cpu", ":onnx-cpu", work=tmp_path / "work")
    found = result["differences"]["onnx-cpu"]
    verdicts = {name: (each["verdict"], each["interval"]) for name, each in found["metrics"].items()}
    t4 = [verdicts.pop(name) for name in ("T4 mAP", "T4 mAPH")]
    assert t4 == [("other settings", None)] * 2
    # nuScenes' numbers have no part in it.
    assert found["paired"] is True
    assert set(verdicts) >= {"mAP", "NDS", "mAP 0-50 m"}
    assert {verdict for verdict, _ in verdicts.values()} == {"no difference"}
    assert verdicts["mAP"][1] == {"low": 0.0, "high": 0.0}
    assert "Differences from @v1:onnx-cpu, metrics computed with other settings not judged, same frames" in text
    assert "(other settings)" in history(tmp_path / "work", ("T4 mAP",), None)
    assert "(no difference)" in history(tmp_path / "work", ("mAP",), None)


def test_an_evaluation_of_earlier_runs_is_warned_of(
    tagged: Workspace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(tagged.root, tmp_path / "work")
    _compare("@v1:onnx-cpu", ":onnx-cpu", work=tmp_path / "work")
    assert "another version" not in caplog.text
    _run(Workspace.open(tmp_path / "work"), "onnx", 0.2)
    for command in (
        lambda: _compare("@v1:onnx-cpu", ":onnx-cpu", work=tmp_path / "work"),
        lambda: history(tmp_path / "work", (), None),
    ):
        caplog.clear()
        command()
        assert caplog.text.count("work: the evaluation is of another version of runs/onnx-cpu") == 1


def test_frames_too_few_for_intervals_are_not_called_others(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, samples=4)
    for backend, shift in (("pytorch", 0.0), ("onnx", 0.4)):
        _run(workspace, backend, shift, 4)
    evaluate(workspace.root, None, False)
    text, result = _compare(work=workspace.root)
    assert "same frames, too few for intervals" in text
    assert result["differences"]["pytorch-cpu"]["metrics"]["mAP"]["verdict"] == "unknown"


def test_latencies_differ_where_intervals_are_apart(tagged: Workspace, tmp_path: Path) -> None:
    other = make_workspace(tmp_path, samples=FRAMES)
    _run(other, "onnx")
    run = Run.open(other.path("runs/onnx-cpu"))
    slow = [({name: time * 3 for name, time in sample.items()}, {}) for sample in run.latencies]
    with other.stage("run:onnx-cpu", tool="shared") as stage:
        write_samples(run.folder / "samples.jsonl", slow)
        for name in ("run.json", "predictions.npz", "samples.jsonl"):
            stage.add_artifact(f"runs/onnx-cpu/{name}", "run")
    evaluate(other.root, None, False)
    _, result = _compare(":pytorch-cpu", str(other.root), work=tagged.root)
    (found,) = result["differences"].values()
    assert found["paired"], "the same frames, in another workspace"
    assert found["latency"] == "3.00 times slower"


def test_size_is_that_of_what_the_run_was_made_from(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    with workspace.stage("models", tool="shared") as stage:
        for name, size in (("onnx/head.onnx", 2_000_000), ("tensorrt/t/head.engine", 500_000)):
            with stage.artifact(name, kind="onnx") as path:
                path.write_bytes(b"x" * size)
    for backend, name in (("onnx", "onnx/head.onnx"), ("tensorrt", "tensorrt/t/head.engine")):
        add_run(workspace, backend, inputs={name: workspace.input_hash(name)})
    evaluate(workspace.root, None, False)
    text, result = _compare(str(workspace.root), work=workspace.root)
    assert {subject["run"]: subject["model_bytes"] for subject in result["subjects"]} == {
        "onnx-cpu": 2_000_000,
        "tensorrt-cpu": 500_000,
    }
    assert [subject["precision"] for subject in result["subjects"]] == ["fp32", "auto"]
    assert "2.00" in text
    # With six frames there is nothing to draw from, and no verdict.
    assert result["differences"]["tensorrt-cpu"]["metrics"]["mAP"]["verdict"] == "unknown"


@pytest.mark.parametrize(
    ("subjects", "words"),
    [
        ((":onnx-cpu",), "one run only"),
        ((":onnx-cpu", "@v1:onnx-cpu", ":onnx-cpu"), "is named twice"),
        ((":onnx-cpu", "@v3"), "there is no version 'v3'.*there are: v1, v2"),
        ((":onnx-cpu", ":onxx-cpu"), "no evaluated run 'onxx-cpu'.*there are: onnx-cpu, pytorch-cpu"),
        ((":onnx-cpu", "a@b@c"), "names nothing"),
    ],
)
def test_typos_are_usage_errors(tagged: Workspace, subjects: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        compare_subjects(subjects, tagged.root, None)
    with pytest.raises(UsageError, match="names no workspace"):
        compare_subjects((":onnx-cpu",), None, None)


def test_what_is_not_evaluated_or_of_another_task_is_refused(tagged: Workspace, tmp_path: Path) -> None:
    other = make_workspace(tmp_path)
    with pytest.raises(InputError, match=r"nothing is evaluated here.*evaluator evaluate --work"):
        compare_subjects((str(tagged.root), str(other.root)), None, None)
    add_run(other, "onnx")
    evaluate(other.root, None, False)

    def reclassify(manifest: Any) -> None:
        manifest.spec = manifest.spec.model_copy(update={"task": "classification"})

    update_manifest(other.root / "manifest.json", reclassify)
    with pytest.raises(InputError, match=r"of task classification, .* of detection3d"):
        compare_subjects((str(tagged.root), str(other.root)), None, None)


def test_history_tells_versions_apart(tagged: Workspace, tmp_path: Path) -> None:
    output = tmp_path / "history.json"
    lines = history(tagged.root, ("mAP", "NDS"), output).splitlines()
    rows = [line for line in lines if "onnx-cpu" in line]
    assert [row.split()[0] for row in rows] == ["v1", "v2", "now"]
    assert "higher" in rows[1] and "lower" in rows[2]
    assert all("no difference" in line for line in lines if "pytorch-cpu" in line and "v1" not in line)
    records = json.loads(output.read_text())["history"]
    assert [(record["version"], record["run"]) for record in records][::2] == [
        ("v1", "onnx-cpu"),
        ("v2", "onnx-cpu"),
        (None, "onnx-cpu"),
    ]
    with pytest.raises(UsageError, match="no metric 'map'"):
        history(tagged.root, ("map",), None)


def test_history_tells_of_versions_without_evaluation(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    with pytest.raises(InputError, match="nothing is evaluated here"):
        history(workspace.root, (), None)
    add_run(workspace, "onnx")
    tag(workspace.root, "raw")
    evaluate(workspace.root, None, False)
    assert "raw: left out, nothing is evaluated here" in history(workspace.root, (), None)
    rollback(workspace.root, "raw")
    text = history(workspace.root, (), None)
    assert "now: left out" in text and "before-" in text
