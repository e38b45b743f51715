"""evaluator score: submissions give what nuscenes-devkit gives for them, and bad ones give one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyquaternion import Quaternion

from evaluator.boxes3d import t4, t4_matching
from evaluator.score import Results, score_files
from evaluator.score.detection3d import parse_class_range
from shared.errors import DeployError, InputError, UsageError
from shared.metrics import nuscenes
from shared.metrics.box_table import BoxTable
from tests.support.nuscenes_devkit import devkit_score
from tests.support.scenes import CLASSES, random_tables


def _submission(
    table: BoxTable, frames: int, classes: Sequence[str], truth: bool, attributes: Sequence[str] = ()
) -> dict[str, Any]:
    results: dict[str, Any] = {f"token{frame}": [] for frame in range(frames)}
    for row in range(len(table)):
        length, width, height = (float(value) for value in table.sizes[row])
        box: dict[str, Any] = {
            "translation": table.centers[row].tolist(),
            "size": [width, length, height],
            "rotation": list(Quaternion(axis=[0, 0, 1], angle=float(table.yaws[row])).elements),
            "velocity": table.velocities[row].tolist(),
            "detection_name": classes[int(table.labels[row])],
            "attribute_name": attributes[int(table.attributes[row])] if table.attributes[row] >= 0 else "",
        }
        if truth:
            box["num_pts"] = int(table.num_points[row])
        else:
            box["detection_score"] = float(table.scores[row])
        results[f"token{int(table.frames[row])}"].append(box)
    return {"meta": {"use_lidar": True}, "results": results}


def _files(folder: Path, predictions: Any, truths: Any) -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True)
    (folder / "predictions.json").write_text(json.dumps(predictions))
    (folder / "truth.json").write_text(json.dumps(truths))
    return folder / "truth.json", folder / "predictions.json"


def _random_files(folder: Path, seed: int = 0, frames: int = 8) -> tuple[Path, Path, BoxTable, BoxTable]:
    predictions, truths = random_tables(seed, frames, reach=50.0)
    files = _files(folder, _submission(predictions, frames, CLASSES, False), _submission(truths, frames, CLASSES, True))
    return (*files, predictions, truths)


def _score(truth: Path, predictions: Path, metric: str = "nuscenes", class_range: str | None = None) -> dict[str, Any]:
    output = truth.parent / "out" / "score.json"
    text = score_files("detection3d", Results(predictions, truth, CLASSES, metric, class_range), output)
    assert "car" in text
    return dict(json.loads(output.read_text()))


def test_equals_the_devkit_with_a_range_per_class(tmp_path: Path) -> None:
    truth, predicted, predictions, truths = _random_files(tmp_path)
    score = _score(truth, predicted, class_range="car=50,truck=50,bus=50,bicycle=40,pedestrian=40")
    limits = np.array([50, 50, 50, 40, 40])
    expected = devkit_score(
        predictions.select(predictions.distances_to_ego() < limits[predictions.labels]),
        truths.select(truths.distances_to_ego() < limits[truths.labels]),
        CLASSES,
        8,
    )
    for name in CLASSES:
        ours = score["ranges"]["all"]["classes"][name]
        assert list(ours["AP_at"].values()) == pytest.approx(list(expected[name]["AP"].values()), abs=1e-9)
        assert ours["errors"] == pytest.approx(expected[name]["errors"], abs=1e-9)


def test_nds_and_mean_errors_are_printed_and_in_the_json(tmp_path: Path) -> None:
    truth, predicted, _, _ = _random_files(tmp_path)
    output = tmp_path / "score.json"
    text = score_files("detection3d", Results(predicted, truth, CLASSES), output)
    score = json.loads(output.read_text())
    assert score["NDS"] == score["ranges"]["all"]["NDS"] > 0 and set(score["errors"]) == set(nuscenes.ERRORS)
    (line,) = [line for line in text.splitlines() if line.startswith("all ")]
    shown = [float(cell) for cell in line.split()[1:]]
    expected = [score["mAP"], score["NDS"], score["NDS_without_AAE"], *score["errors"].values()]
    assert shown == pytest.approx(expected, abs=5e-4)


def test_unlabeled_attributes_are_said_beside_nds(tmp_path: Path) -> None:
    predictions, truths = random_tables(0, 8, reach=50.0)
    texts, scores = {}, {}
    for labeled in (True, False):
        sides = []
        for table, truth in ((predictions, False), (truths, True)):
            attributes = table.labels % 2 if labeled else np.full(len(table), -1)
            sides.append(_submission(replace(table, attributes=attributes), 8, CLASSES, truth, ["moving", "parked"]))
        (tmp_path / str(labeled)).mkdir()
        files = _files(tmp_path / str(labeled), *sides)
        output = tmp_path / f"{labeled}.json"
        texts[labeled] = score_files("detection3d", Results(files[1], files[0], CLASSES), output)
        scores[labeled] = json.loads(output.read_text())
    assert scores[False]["errors"]["AAE"] == 1.0 and not scores[False]["attributes_labeled"]
    assert scores[True]["attributes_labeled"] and scores[True]["errors"]["AAE"] < 1
    assert "no attribute is labeled, so AAE is 1 and takes its tenth of NDS" in texts[False]
    assert "no attribute is labeled" not in texts[True]
    # Without AAE both say the same: 5 parts mAP and four errors.
    score = scores[False]
    credit = sum(max(0.0, 1 - score["errors"][name]) for name in ("ATE", "ASE", "AOE", "AVE"))
    assert score["NDS_without_AAE"] == pytest.approx((5 * score["mAP"] + credit) / 9)
    assert scores[True]["NDS_without_AAE"] == pytest.approx(score["NDS_without_AAE"])
    assert score["NDS"] == pytest.approx((5 * score["mAP"] + credit) / 10)


def test_a_class_without_ground_truth_says_why_it_counts_0(tmp_path: Path) -> None:
    predictions, truths = random_tables(0, 8, reach=50.0)
    note, output = "bus: no ground truth, 0 in mAP", tmp_path / "score.json"
    for kept, expected in ((truths, False), (truths.select(truths.labels != CLASSES.index("bus")), True)):
        sides = _submission(predictions, 8, CLASSES, False), _submission(kept, 8, CLASSES, True)
        truth, predicted = _files(tmp_path, *sides)
        text = score_files("detection3d", Results(predicted, truth, CLASSES), output)
        assert (note in text) is expected
    score = json.loads(output.read_text())
    assert "mAP of classes with ground truth" in text
    assert score["mAP_of_labeled"] == pytest.approx(score["mAP"] * len(CLASSES) / (len(CLASSES) - 1))


def test_real_predictions_give_what_the_devkit_gave(tmp_path: Path, real_data: Path) -> None:
    folder = real_data / "nuscenes_mini_val"
    expected = json.loads((folder / "eval_expected_nuscenes.json").read_text())["nuscenes"]["nuscenes_range"]
    data = np.load(folder / "eval_gt_and_fastbev_predictions.npz")
    classes, attributes = data["classes"].tolist(), data["attributes"].tolist()
    submissions = []
    for side in ("pd", "gt"):
        frames = data[f"{side}_frame"].astype(np.int64)
        table = BoxTable(
            frames,
            *(data[f"{side}_{name}"] for name in ("label", "center", "size", "yaw", "velocity")),
            data["pd_score"] if side == "pd" else np.ones(len(frames)),
            data["gt_num_pts"] if side == "gt" else frames,
            data[f"{side}_attr"],
        )
        submissions.append(_submission(table, int(data["n_frames"]), classes, side == "gt", attributes))
    truth, predicted = _files(tmp_path, *submissions)
    ranges = ",".join(f"{name}={limit}" for name, limit in expected["class_range"].items())
    output = tmp_path / "score.json"
    score_files("detection3d", Results(predicted, truth, classes, class_range=ranges), output)
    score = json.loads(output.read_text())["ranges"]["all"]
    assert score["mAP"] == pytest.approx(expected["mean_ap"], abs=1e-9)
    assert score["NDS"] == pytest.approx(expected["nd_score"], abs=1e-9)
    assert (score["num_truths"], score["num_predictions"]) == (expected["n_gt"], expected["n_pred"])


def test_boxes_in_another_frame_take_their_range_from_ego_translation(tmp_path: Path) -> None:
    truth, predicted, _, _ = _random_files(tmp_path)
    expected = _score(truth, predicted, class_range="30")
    moved = []
    for path in (predicted, truth):
        content = json.loads(path.read_text())
        for boxes in content["results"].values():
            for box in boxes:
                box["ego_translation"] = box["translation"]
                x, y, z = box["translation"]
                box["translation"] = [1000.0 - y, 2000.0 + x, z]
                turn = Quaternion(axis=[0, 0, 1], angle=np.pi / 2)
                box["rotation"] = list((turn * Quaternion(box["rotation"])).elements)
                box["velocity"] = [-box["velocity"][1], box["velocity"][0]]
        moved.append(content)
    files = _files(tmp_path / "moved", *moved)
    actual = _score(*files, class_range="30")
    assert actual["ranges"]["all"]["mAP"] == pytest.approx(expected["ranges"]["all"]["mAP"])
    assert actual["ranges"]["all"]["errors"] == pytest.approx(expected["ranges"]["all"]["errors"], abs=1e-9)
    with pytest.raises(InputError, match="ego frame"):
        _score(*files, metric="t4")


def test_t4_metric_of_files_is_that_of_tables(tmp_path: Path) -> None:
    truth, predicted, predictions, truths = _random_files(tmp_path)
    score = _score(truth, predicted, metric="t4")
    expected = t4.score_range(t4_matching.find_candidates(predictions, truths), CLASSES, 0, 121)
    for rule, values in expected.items():
        assert score["ranges"]["all"][rule]["mAP"] == pytest.approx(values.mean_ap)
        assert score["ranges"]["all"][rule]["mAPH"] == pytest.approx(values.mean_aph)


def test_t4_as_awml_computes_it_is_asked_for_and_named(tmp_path: Path) -> None:
    truth, predicted, predictions, truths = _random_files(tmp_path)
    output = tmp_path / "score.json"

    def run(**options: Any) -> tuple[str, dict[str, Any]]:
        text = score_files("detection3d", Results(predicted, truth, CLASSES, "t4", None, options), output)
        return text, json.loads(output.read_text())

    plain_text, plain = run()
    text, score = run(compat="awml")
    assert "T4 (perception_eval, compat awml) per range" in text and "compat" not in plain_text
    assert score["settings"]["compat"] == "awml" and plain["settings"]["compat"] == "none"
    # A quaternion holds a yaw between -pi and pi.
    predictions, truths = (
        replace(table, yaws=np.arctan2(np.sin(table.yaws), np.cos(table.yaws))) for table in (predictions, truths)
    )
    as_awml = t4.score_range(
        t4_matching.find_candidates(predictions, truths, compatibility=t4_matching.AS_AWML), CLASSES, 0, 121
    )
    found = score["ranges"]["0-121"]
    for rule, expected in as_awml.items():
        assert (found[rule]["mAP"], found[rule]["mAPH"]) == pytest.approx((expected.mean_ap, expected.mean_aph))
    bev = "center_distance_bev"
    assert found[bev]["mAP"] == pytest.approx(plain["ranges"]["0-121"][bev]["mAP"])
    assert found[bev]["mAPH"] > plain["ranges"]["0-121"][bev]["mAPH"], "turned by twice a small yaw counts as equal"

    text, score = run(label_policy="allow_any", min_points="car=8,bus=0")
    assert "perception_eval, label_policy allow_any, min_points car=8 bus=0" in text
    fewest = np.array([{"car": 8, "bus": 0}.get(name, 1) for name in CLASSES])
    candidates = t4_matching.find_candidates(predictions, truths, any_label=True, min_points=fewest)
    matches = t4_matching.match_range(candidates, 0, 121)
    expected = t4.score(matches, CLASSES)["iou_3d_0.3"].mean_ap
    assert score["ranges"]["0-121"]["iou_3d_0.3"]["mAP"] == pytest.approx(expected)
    counts = score["ranges"]["0-121"]["pass_fail"]
    assert counts["success"] + counts["missed"] == len(matches.truth_labels) and counts["rule"] == "plane_distance"
    assert counts["fail"] == counts["missed"] + counts["false"]


@pytest.mark.parametrize("options", [{"min_points": "many"}, {"min_points": "tram=5"}, {"min_points": "car=-1"}])
def test_points_that_make_no_sense_are_refused(tmp_path: Path, options: dict[str, str]) -> None:
    truth, predicted, _, _ = _random_files(tmp_path)
    with pytest.raises(UsageError, match=r"points|classes"):
        score_files("detection3d", Results(predicted, truth, CLASSES, "t4", None, options), None)
    with pytest.raises(UsageError, match=r"has no min_points|not a number|not among"):
        score_files("detection3d", Results(predicted, truth, CLASSES, "nuscenes", None, options), None)


def test_optional_fields_may_be_missing(tmp_path: Path) -> None:
    truth, predicted, _, truths = _random_files(tmp_path)
    contents = [json.loads(path.read_text()) for path in (predicted, truth)]
    for content in contents:
        for boxes in content["results"].values():
            for box in boxes:
                for name in ("velocity", "attribute_name", "num_pts"):
                    box.pop(name, None)
    score = _score(*_files(tmp_path / "bare", *contents))["ranges"]["all"]
    assert score["num_truths"] == len(truths)
    assert score["errors"]["AVE"] == 1.0
    with_nan = nuscenes.score_range(nuscenes.find_candidates(*random_tables(0, 8, reach=50.0)), CLASSES, 0, 121)
    assert score["mAP"] == pytest.approx(with_nan.mean_average_precision)


def test_ground_truth_of_other_classes_is_left_out(tmp_path: Path) -> None:
    truth, predicted, _, truths = _random_files(tmp_path)
    content = json.loads(truth.read_text())
    content["results"]["token0"].append(content["results"]["token0"][0] | {"detection_name": "animal"})
    truth.write_text(json.dumps(content))
    assert _score(truth, predicted)["ranges"]["all"]["num_truths"] == len(truths)


def _break(content: Any, name: str) -> Any:
    boxes = content["results"]["token0"]
    first = boxes[0]
    changes: dict[str, Any] = {
        "no results": lambda: content.pop("results"),
        "missing sample": lambda: content["results"].pop("token3"),
        "other sample": lambda: content["results"].update(extra=[]),
        "box without size": lambda: first.pop("size"),
        "unknown class": lambda: first.update(detection_name="animal"),
        "short translation": lambda: first.update(translation=[1.0, 2.0]),
        "NaN score": lambda: first.update(detection_score=float("nan")),
        "text score": lambda: first.update(detection_score="high"),
        "no score": lambda: first.pop("detection_score"),
        "zero size": lambda: first.update(size=[0.0, 1.0, 1.0]),
        "zero rotation": lambda: first.update(rotation=[0.0, 0.0, 0.0, 0.0]),
        "too many": lambda: boxes.extend([first] * 500),
        "not a list": lambda: content["results"].update(token0={}),
        "not a box": lambda: boxes.append(3),
    }
    changes[name]()
    return content


@pytest.mark.parametrize(
    "name",
    [
        "no results", "missing sample", "other sample", "box without size", "unknown class", "short translation",
        "NaN score", "text score", "no score", "zero size", "zero rotation", "too many", "not a list", "not a box",
    ],
)  # fmt: skip
def test_broken_predictions_are_refused(tmp_path: Path, name: str) -> None:
    truth, predicted, _, _ = _random_files(tmp_path)
    predicted.write_text(json.dumps(_break(json.loads(predicted.read_text()), name)))
    with pytest.raises(InputError) as caught:
        _score(truth, predicted)
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)


def test_truncated_and_missing_files_are_refused(tmp_path: Path) -> None:
    truth, predicted, _, _ = _random_files(tmp_path)
    predicted.write_text(predicted.read_text()[:-50])
    with pytest.raises(InputError, match="can't be read as JSON"):
        _score(truth, predicted)
    with pytest.raises(InputError, match="can't be read"):
        _score(truth, tmp_path / "nowhere.json")


@pytest.mark.parametrize("text", ["far", "car=50,tram=30", "car=-3", "car=nan", "0"])
def test_ranges_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_class_range(text, CLASSES)


def test_ranges() -> None:
    assert parse_class_range(None, CLASSES).tolist() == [121.0] * 5
    assert parse_class_range("50", CLASSES).tolist() == [50.0] * 5
    assert parse_class_range("50,bus=70", CLASSES).tolist() == [50, 50, 70, 50, 50]


def test_repeated_classes_are_refused(tmp_path: Path) -> None:
    truth, predicted, _, _ = _random_files(tmp_path)
    with pytest.raises(DeployError, match="repeat"):
        score_files("detection3d", Results(predicted, truth, ["car", "car"]), None)
