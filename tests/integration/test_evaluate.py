"""evaluator evaluate and summary on workspaces with recorded runs, good and broken."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluator.evaluate import evaluate
from evaluator.metrics import detection3d, find_metric
from evaluator.summary import summary
from shared import formats
from shared.errors import DeployError, EnvironmentLacks, GateFailed, InputError, ManifestError, UsageError
from shared.manifest import update_manifest
from shared.workspace import Workspace
from tests.support.workspaces import CLASSES, SAMPLES, add_run, good_boxes, make_workspace


def _evaluate(workspace: Workspace, **options: bool) -> str:
    return evaluate(workspace.root, None, options.get("force", False))


def test_two_runs_are_scored_recorded_and_shown(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    add_run(workspace, "framework", samples=2)
    add_run(workspace, "pytorch")
    add_run(workspace, "onnx")
    text = _evaluate(workspace)
    results = workspace.manifest().results
    assert set(results["metrics"]) == {"pytorch-cpu", "onnx-cpu"} == set(results["latency"])
    assert 0.9 < results["metrics"]["onnx-cpu"]["mAP"] <= 1.0
    assert results["metrics"]["onnx-cpu"] == results["metrics"]["pytorch-cpu"]
    assert set(results["metrics"]["onnx-cpu"]) == set(detection3d.headline_names([]))
    assert results["latency"]["onnx-cpu"]["total"]["mean"] == pytest.approx(10.0 + (SAMPLES - 1) / 2)
    stored = json.loads(workspace.artifact("evaluation/onnx-cpu.json").read_text())
    assert list(stored["metrics"]["t4"]["ranges"]) == ["0-50", "50-90", "90-121", "0-121"]
    assert stored["metrics"]["frames"] == SAMPLES
    ranges = stored["metrics"]["nuscenes"]["ranges"]
    counts = [ranges[name]["num_truths"] for name in ("0-50", "50-90", "90-121")]
    assert sum(counts) == ranges["0-121"]["num_truths"] and all(counts)
    assert stored["metrics"]["t4"]["ranges"]["0-121"]["center_distance_bev"]["mAP"] >= ranges["0-121"]["mAP"]
    for expected in ("mAP", "0-50", "pedestrian", "latency median [ms]", "onnx-cpu"):
        assert expected in text


def test_the_t4_metric_is_computed_as_the_config_or_the_command_says(tmp_path: Path) -> None:
    settings = {"enabled": True, "num_samples": -1, "t4": {"compat": "awml"}}
    workspace = make_workspace(tmp_path, evaluation=settings)
    boxes = {index: good_boxes(workspace, index) for index in range(SAMPLES)}
    add_run(workspace, "onnx", boxes={index: replace(each, yaws=-each.yaws) for index, each in boxes.items()})
    text = _evaluate(workspace)
    assert "T4 (perception_eval, compat awml) per range" in text
    assert re.search(r"^computed with +compat awml$", text, re.MULTILINE), "also beside the numbers of other runs"
    as_awml = json.loads(workspace.artifact("evaluation/onnx-cpu.json").read_text())
    text = evaluate(workspace.root, None, False, t4={"compat": "none", "min_points": "3"})
    assert "compat" not in text and "min_points" in text
    right = json.loads(workspace.artifact("evaluation/onnx-cpu.json").read_text())
    assert as_awml["metrics"]["t4"]["settings"]["compat"] == "awml"
    assert right["metrics"]["t4"]["settings"]["compat"] == "none"
    assert as_awml["headline"]["T4 mAPH"] > 1.2 * right["headline"]["T4 mAPH"], "the sign of yaw is lost"


def test_second_call_is_up_to_date_and_prints_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    workspace = make_workspace(tmp_path)
    add_run(workspace, "onnx")
    first = _evaluate(workspace)
    before = workspace.manifest().stages["evaluate"]
    with caplog.at_level("INFO"):
        assert _evaluate(workspace) == first
    assert "evaluate: up to date" in caplog.text
    assert workspace.manifest().stages["evaluate"] == before
    # A run that changed is evaluated again.
    add_run(workspace, "onnx", boxes={0: good_boxes(workspace, 0).select(np.arange(2))})
    assert _evaluate(workspace) != first


def test_summary_tells_stages_verdicts_metrics_and_place(tmp_path: Path) -> None:
    from verifier.verify import verify

    workspace = make_workspace(tmp_path)
    add_run(workspace, "framework", samples=2)
    add_run(workspace, "pytorch")
    add_run(workspace, "onnx")
    workspace.stage("build", tool="shared").skip("TensorRT is not installed")
    verify(workspace.root, (), False)
    _evaluate(workspace)
    text = summary(workspace.root)
    for expected in (
        "TensorRT is not installed",
        "skipped",
        "pytorch-cpu -> onnx-cpu",
        "passed",
        "mAP",
        str(workspace.root),
    ):
        assert expected in text


def test_disabled_evaluation_is_recorded_as_skipped(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, evaluation={"enabled": False})
    assert "skipped" in _evaluate(workspace)
    assert workspace.manifest().stages["evaluate"].status == "skipped"


def test_disabled_backends_are_left_out(tmp_path: Path) -> None:
    backends = {"backends": {"pytorch": {"enabled": False}}}
    workspace = make_workspace(tmp_path, evaluation={"enabled": True, "num_samples": -1} | backends)
    add_run(workspace, "pytorch")
    add_run(workspace, "onnx")
    _evaluate(workspace)
    assert set(workspace.manifest().results["metrics"]) == {"onnx-cpu"}


def test_unlabeled_data_gives_latency_only(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    some_boxes = {index: good_boxes(workspace, index) for index in range(SAMPLES)}
    infos = json.loads((tmp_path / "data" / "infos.json").read_text())
    for frame in infos["data_list"]:
        del frame["instances"]
    (tmp_path / "data" / "infos.json").write_text(json.dumps(infos))
    add_run(workspace, "onnx", boxes=some_boxes)
    text = _evaluate(workspace)
    assert "Latency of onnx-cpu" in text and "mAP" not in text
    assert "metrics" not in workspace.manifest().results


def test_boxes_of_unknown_classes_are_ignored(tmp_path: Path) -> None:
    # The data set knows three classes, the model two: boxes of the third are neither wanted nor wrong.
    workspace = make_workspace(tmp_path)
    add_run(workspace, "onnx")
    _evaluate(workspace)
    expected = workspace.manifest().results["metrics"]["onnx-cpu"]
    infos = json.loads((tmp_path / "data" / "infos.json").read_text())
    infos["metainfo"]["classes"] = ["tram", *CLASSES]
    for frame in infos["data_list"]:
        for instance in frame["instances"]:
            instance["bbox_label_3d"] += 1
        frame["instances"].append(frame["instances"][0] | {"bbox_label_3d": 0})
    boxes = {index: good_boxes(workspace, index) for index in range(SAMPLES)}
    (tmp_path / "data" / "infos.json").write_text(json.dumps(infos))
    add_run(workspace, "onnx", boxes=boxes)
    _evaluate(workspace)
    assert workspace.manifest().results["metrics"]["onnx-cpu"] == pytest.approx(expected)


def test_a_run_that_never_began_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A backend tried on a device that is not there must not stand in the way of those that ran."""
    caplog.set_level("WARNING")
    workspace = make_workspace(tmp_path)
    add_run(workspace, "pytorch")
    with pytest.raises(EnvironmentLacks), workspace.stage("run:onnx-cuda0", tool="runtime"):
        raise EnvironmentLacks("no GPU")
    _evaluate(workspace)
    assert set(workspace.manifest().results["metrics"]) == {"pytorch-cpu"}
    assert "run 'onnx-cuda0' failed before its first sample and is left out: no GPU" in caplog.text


def test_workspace_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished run"):
        _evaluate(make_workspace(tmp_path))


def test_empty_run_is_refused(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    add_run(workspace, "onnx", samples=0)
    with pytest.raises(InputError, match="no samples"):
        _evaluate(workspace)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scores": np.float32("nan")}, "score is not a finite number"),
        ({"centers": np.float32("inf")}, "center is not a finite number"),
        ({"sizes": np.float32(0)}, "not longer than 0 m"),
        ({"labels": np.int64(2)}, "label is outside the list of 2 classes"),
        ({"labels": np.int64(-1)}, "label is outside the list of 2 classes"),
    ],
)
def test_boxes_that_make_no_sense_are_refused(tmp_path: Path, changes: dict[str, np.generic], words: str) -> None:
    workspace = make_workspace(tmp_path)
    boxes = good_boxes(workspace, 3)
    broken = replace(boxes, **{name: np.full_like(getattr(boxes, name), value) for name, value in changes.items()})
    add_run(workspace, "onnx", boxes={3: broken})
    with pytest.raises(InputError, match=words) as caught:
        _evaluate(workspace)
    assert "onnx-cpu" in str(caught.value) and "frame 3" in str(caught.value)
    assert workspace.manifest().stages["evaluate"].status == "failed"


@pytest.mark.parametrize("file", ["predictions.npz", "samples.jsonl", "run.json"])
def test_truncated_run_is_refused(tmp_path: Path, file: str) -> None:
    workspace = make_workspace(tmp_path)
    add_run(workspace, "onnx")
    path = workspace.path(f"runs/onnx-cpu/{file}")
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ManifestError, match="differs from its hash"):
        _evaluate(workspace)


def test_moved_data_is_found_where_the_command_says(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    add_run(workspace, "onnx")
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    with pytest.raises(DeployError):
        _evaluate(workspace)
    assert "mAP" in evaluate(workspace.root, tmp_path / "elsewhere", False)


def test_unknown_task_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="detection3d"):
        find_metric("segmentation")


def test_gates_fail_and_pass_the_same_on_the_second_call(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    workspace = make_workspace(tmp_path)
    add_run(workspace, "pytorch")
    worse = {index: good_boxes(workspace, index).select(np.arange(6)) for index in range(SAMPLES)}
    add_run(workspace, "onnx", boxes=worse)
    assert "passed" in evaluate(workspace.root, None, False, ("mAP < 0.1",))
    for _ in range(2):
        with pytest.raises(GateFailed, match="onnx-cpu: mAP drop > 5%") as caught:
            evaluate(workspace.root, None, False, ("mAP < 0.1", "mAP drop > 5%"))
        assert caught.value.exit_code == 6
        assert "mAP drop > 5%  onnx-cpu" in str(caught.value.answer)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    gates = workspace.manifest().results["gates"]["summary"]["gates"]
    assert [(gate["gate"], gate["run"], gate["passed"]) for gate in gates] == [
        ("mAP < 0.1", "onnx-cpu", True),
        ("mAP < 0.1", "pytorch-cpu", True),
        ("mAP drop > 5%", "onnx-cpu", False),
    ]
    with pytest.raises(UsageError, match="is not a gate"):
        evaluate(workspace.root, None, False, ("mAP",))


def test_a_manifest_without_the_gates_is_one_line(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    add_run(workspace, "onnx")
    evaluate(workspace.root)
    place = workspace.root / "manifest.json"
    update_manifest(place, lambda manifest: manifest.results["gates"]["summary"].pop("gates"))
    with pytest.raises(ManifestError, match=r"results\.gates\.summary\.gates is missing"):
        evaluate(workspace.root)
    update_manifest(place, lambda manifest: manifest.results.pop("gates"))
    evaluate(workspace.root)
    assert workspace.result("gates", "summary", lists=("gates",)), "a result that is gone is made again"


def test_enough_frames_give_intervals_of_values_and_differences(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, samples=12)
    boxes = {index: good_boxes(workspace, index) for index in range(12)}
    shifted = {index: replace(value, centers=value.centers + np.float32(0.4)) for index, value in boxes.items()}
    add_run(workspace, "pytorch", samples=12, boxes=boxes)
    add_run(workspace, "onnx", samples=12, boxes=shifted)
    text = _evaluate(workspace)
    stored = json.loads(workspace.artifact("evaluation/onnx-cpu.json").read_text())
    bounds, change = stored["intervals"]["mAP"], stored["differences"]["mAP"]
    assert bounds["low"] < stored["headline"]["mAP"] < bounds["high"]
    assert change["high"] < 0, "a shift by 0.57 m costs AP at 0.5 m in any set of frames"
    assert "Differences on the same frames" in text
    evaluate(workspace.root, None, False, resample="scenes")
    stored = json.loads(workspace.artifact("evaluation/onnx-cpu.json").read_text())
    assert stored["intervals"] == {}, "all frames are of one drive"


def test_results_of_another_version_are_not_misread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from verifier.verify import verify

    workspace = make_workspace(tmp_path)
    add_run(workspace, "framework", samples=2)
    add_run(workspace, "pytorch")
    add_run(workspace, "onnx")
    verify(workspace.root, (), False)
    monkeypatch.setattr(formats, "VERIFICATION", -1)
    assert "another version of the verifier" in summary(workspace.root)
    _evaluate(workspace)
    monkeypatch.setattr(formats, "EVALUATION", -1)
    with pytest.raises(InputError, match="another version of the evaluator"):
        summary(workspace.root)
