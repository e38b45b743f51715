"""Metrics of labeled points and pixels: what other libraries say of the same labels, and what can't be scored."""

from __future__ import annotations

import importlib.util
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, jaccard_score, precision_recall_fscore_support

from evaluator.bootstrap import draw, replicate
from evaluator.left_out import left_out
from evaluator.metrics import find_metric
from evaluator.metrics.segmentation3d import RINGS
from shared.arrays import Float32, UInt8
from shared.config.check_sections import Evaluation
from shared.errors import InputError
from shared.metrics.confusion import UNLABELED
from tests.support.segmentation import (
    CLASSES,
    frames,
    images,
    mask_run,
    point_run,
    some_labels,
    wrong_here_and_there,
)

EXACT = 1e-9
LENGTHS = [400, 0, 350, 1, 500]


def _frames(seed: int, num_classes: int = len(CLASSES)) -> tuple[list[UInt8], list[UInt8], list[Float32]]:
    """Truth, answers and points of five frames, one of them empty."""
    rng = np.random.default_rng(seed)
    truth = [some_labels(rng, length, num_classes) for length in LENGTHS]
    given = [wrong_here_and_there(rng, labels, num_classes) for labels in truth]
    points = [rng.uniform(-95, 95, (length, 4)).astype(np.float32) for length in LENGTHS]
    return truth, given, points


def _evaluated(folder: Path, truth: Sequence[Any], given: Sequence[UInt8], points: Sequence[Any]) -> dict[str, Any]:
    metric = find_metric("segmentation3d")
    labeled = metric.ground_truth(frames(folder / "data", truth, points, len(CLASSES)), CLASSES, CLASSES)
    assert labeled is not None
    return metric.evaluate(metric.match(point_run(folder / "run", given), labeled, CLASSES, Evaluation()))


def _check_against_sklearn(found: dict[str, Any], truth: UInt8, given: UInt8) -> None:
    judged = truth != UNLABELED
    wanted, answer, labels = truth[judged], given[judged], range(len(CLASSES))
    iou = jaccard_score(wanted, answer, labels=labels, average=None, zero_division=0)
    iou[~np.isin(labels, np.concatenate([wanted, answer]))] = np.nan  # scikit-learn has no such choice
    columns = precision_recall_fscore_support(wanted, answer, labels=labels, zero_division=np.nan)
    for label, name in enumerate(CLASSES):
        row = found["by_class"][name]
        expected = [iou[label], *(column[label] for column in columns[:3])]
        values = [np.nan if row[key] is None else row[key] for key in ("IoU", "precision", "recall", "F1")]
        np.testing.assert_allclose(values, expected, rtol=0, atol=EXACT)
        assert row["truths"] == columns[3][label]
    assert found["overall"]["mIoU"] == pytest.approx(np.nanmean(iou), abs=EXACT)
    assert found["overall"]["accuracy"] == pytest.approx((wanted == answer).mean(), abs=EXACT)
    assert found["overall"]["class_accuracy"] == pytest.approx(np.nanmean(columns[1]), abs=EXACT)


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_scikit_learns(tmp_path: Path, seed: int) -> None:
    truth, given, points = _frames(seed)
    found = _evaluated(tmp_path, truth, given, points)
    whole, answer = np.concatenate(truth), np.concatenate(given)
    _check_against_sklearn(found, whole, answer)
    judged = whole != UNLABELED
    matrix = confusion_matrix(whole[judged], answer[judged], labels=[*range(len(CLASSES)), UNLABELED])
    np.testing.assert_array_equal(found["confusion"], matrix[: len(CLASSES)])
    assert (found["judged"], found["not_judged"]) == (judged.sum(), (~judged).sum())


def test_rings_take_the_points_from_low_to_below_high(tmp_path: Path) -> None:
    truth, given, points = _frames(4)
    found = _evaluated(tmp_path, truth, given, points)
    x, y = np.concatenate(points)[:, :2].T
    distances = np.sqrt(x**2 + y**2)
    assert list(found["rings"]) == list(RINGS) == ["0-20", "20-40", "40-60", "60-80", "80-100", "100-120"]
    for low, name in zip(range(0, 120, 20), RINGS, strict=True):
        inside = (distances >= low) & (distances < low + 20)
        _check_against_sklearn(found["rings"][name], np.concatenate(truth)[inside], np.concatenate(given)[inside])


def test_a_point_on_a_bound_is_of_the_ring_beyond_it(tmp_path: Path) -> None:
    points = np.array([[20, 0, 0, 0], [0, -120, 0, 0], [np.nan, 0, 0, 0], [12, 16, 0, 0]], np.float32)
    labels = np.zeros(4, np.uint8)
    found = _evaluated(tmp_path, [labels], [labels], [points])
    counted = {name: ring["by_class"]["road"]["truths"] for name, ring in found["rings"].items()}
    assert counted == {**dict.fromkeys(RINGS, 0), "20-40": 2}
    assert found["judged"] == 4


@pytest.mark.exporter
@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_mmdet3d(tmp_path: Path, seed: int) -> None:
    package = importlib.util.find_spec("mmdet3d")
    assert package is not None and package.submodule_search_locations is not None
    # The module alone: its package needs mmcv's compiled operators.
    path = Path(package.submodule_search_locations[0]) / "evaluation/functional/seg_eval.py"
    spec = importlib.util.spec_from_file_location("mmdet3d_seg_eval", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    truth, given, points = _frames(seed)
    ignored = len(CLASSES)
    # There, what is ignored is a class of its own.
    as_theirs = [[np.where(each == UNLABELED, ignored, each) for each in side] for side in (truth, given)]
    theirs = module.seg_eval(*as_theirs, {**dict(enumerate(CLASSES)), ignored: "ignored"}, ignored)
    found = _evaluated(tmp_path, truth, given, points)
    ours = {"miou": "mIoU", "acc": "accuracy", "acc_cls": "class_accuracy"}
    for key, name in ours.items():
        assert found["overall"][name] == pytest.approx(theirs[key], abs=EXACT)
    for name in CLASSES:
        assert found["by_class"][name]["IoU"] == pytest.approx(theirs[name], abs=EXACT)


def test_a_class_that_is_nowhere_has_no_part_in_a_mean(tmp_path: Path) -> None:
    truth, right = np.array([0, 0, 1, 1], np.uint8), np.array([0, 0, 1, 1], np.uint8)
    points = np.zeros((4, 4), np.float32)
    found = _evaluated(tmp_path / "nowhere", [truth], [right], [points])
    assert found["by_class"]["tree"]["IoU"] is None
    assert found["overall"]["mIoU"] == 1.0
    # One that is found but not there counts, as in mmdet3d; it has no recall.
    found = _evaluated(tmp_path / "found", [truth], [np.array([0, 3, 1, 1], np.uint8)], [points])
    assert found["by_class"]["tree"] == {
        "IoU": 0.0, "precision": 0.0, "recall": None, "F1": 0.0, "truths": 0, "found": 1,
    }  # fmt: skip
    assert found["overall"]["mIoU"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert found["overall"]["class_accuracy"] == pytest.approx(0.75)


def test_frames_without_points_and_without_labels_are_counted(tmp_path: Path) -> None:
    nothing, some = np.zeros(0, np.uint8), np.array([1, 1], np.uint8)
    found = _evaluated(tmp_path, [nothing, some, None], [nothing, some, some], [np.zeros((n, 4)) for n in (0, 2, 2)])
    assert (found["frames"], found["empty_frames"], found["frames_without_labels"]) == (2, 1, 1)
    assert found["overall"]["mIoU"] == 1.0
    found = _evaluated(tmp_path / "empty", [nothing], [nothing], [np.zeros((0, 4))])
    assert found["overall"]["mIoU"] is None
    assert find_metric("segmentation3d").tables(found)[0].rows == [["mean", "0", "", "-", "-", "-", "-"]]


def test_classes_of_other_names_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metric, samples = find_metric("segmentation2d"), images(tmp_path, [np.zeros((4, 6), np.uint8)], 4)
    metric.ground_truth(samples, CLASSES, CLASSES)
    assert not caplog.records
    metric.ground_truth(samples, ["automobile", *CLASSES[1:]], CLASSES)
    assert f"no label is of {CLASSES[0]}" in caplog.text
    metric.ground_truth(samples, [name.upper() for name in CLASSES], CLASSES)
    assert "nothing is judged" in caplog.text


def test_nothing_labeled_is_no_ground_truth(tmp_path: Path) -> None:
    metric = find_metric("segmentation3d")
    assert metric.ground_truth(frames(tmp_path, [None], [np.zeros((1, 4))], 4), CLASSES, CLASSES) is None
    assert find_metric("segmentation2d").ground_truth(images(tmp_path, [None], 4), CLASSES, CLASSES) is None


def test_points_of_classes_that_the_model_lacks_are_not_judged(tmp_path: Path) -> None:
    metric = find_metric("segmentation3d")
    samples = frames(tmp_path / "data", [np.array([0, 1, 2, 3], np.uint8)], [np.zeros((4, 4))], 4)
    classes = ["tree", "road"]
    truth = metric.ground_truth(samples, CLASSES, classes)
    run = point_run(tmp_path / "run", [np.array([1, 0, 0, 0], np.uint8)], classes)
    found = metric.evaluate(metric.match(run, truth, classes, Evaluation()))
    assert found["confusion"] == [[1, 0, 0], [0, 1, 0]]
    assert found["not_judged"] == 2


def test_masks_are_scored_as_points_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    truth = [some_labels(rng, (20, 30), 4), some_labels(rng, (7, 9), 4)]
    given = [wrong_here_and_there(rng, mask, 4) for mask in truth]
    metric = find_metric("segmentation2d")
    labeled = metric.ground_truth(images(tmp_path / "data", [*truth, None], 4), CLASSES, CLASSES)
    run = mask_run(tmp_path / "run", [*given, given[0]])
    found = metric.evaluate(metric.match(run, labeled, CLASSES, Evaluation()))
    flat = [np.concatenate([mask.reshape(-1) for mask in masks]) for masks in (truth, given)]
    _check_against_sklearn(found, flat[0], flat[1])
    assert found["rings"] == {}


def test_an_interval_counts_frames_as_often_as_they_are_drawn(tmp_path: Path) -> None:
    truth, given, points = _frames(5)
    metric = find_metric("segmentation3d")
    labeled = metric.ground_truth(frames(tmp_path / "data", truth, points, 4), CLASSES, CLASSES)
    matched = metric.match(point_run(tmp_path / "run", given), labeled, CLASSES, Evaluation())
    copies = np.array([2, 1, 0, 3, 1])
    repeated = np.repeat(np.arange(5), copies).tolist()
    again = [[side[index] for index in repeated] for side in (truth, given, points)]
    expected = metric.headline(_evaluated(tmp_path / "again", *again))
    found = metric.resample(matched, copies)
    assert list(found) == metric.headline_names(CLASSES) == list(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=EXACT)
    many = replicate(draw([str(index) for index in range(10)]), lambda drawn: metric.resample(matched, drawn[:5]), "")
    assert np.isnan(many["IoU tree"]).sum() < len(many["mIoU"]) == 400


# -- what can't be scored ---------------------------------------------------------------------------------------------


def _refused(folder: Path, truth: UInt8, given: UInt8, points: int = 3) -> str:
    with pytest.raises(InputError) as refused:
        _evaluated(folder, [truth], [given], [np.zeros((points, 4))])
    return str(refused.value)


def test_another_number_of_labels_is_refused(tmp_path: Path) -> None:
    line = _refused(tmp_path, np.zeros(3, np.uint8), np.zeros(2, np.uint8))
    assert "run, sample s0: has labels of 2 points, the ground truth of 3 points" in line


def test_labels_of_another_frame_are_refused(tmp_path: Path) -> None:
    line = _refused(tmp_path, np.zeros(3, np.uint8), np.zeros(3, np.uint8), points=4)
    assert "has 3 labels for the 4 points of 0.points.bin" in line


def test_labels_outside_the_list_are_refused(tmp_path: Path) -> None:
    line = _refused(tmp_path / "run", np.zeros(3, np.uint8), np.array([0, 4, 0], np.uint8))
    assert "label 4 is outside the list of 4 classes" in line
    line = _refused(tmp_path / "truth", np.array([0, 9, 0], np.uint8), np.zeros(3, np.uint8))
    assert "0.labels.bin: label 9 is outside the list" in line


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    metric = find_metric("segmentation2d")
    truth = metric.ground_truth(images(tmp_path, [np.zeros((4, 6), np.uint8)], 4), CLASSES, CLASSES)
    run = mask_run(tmp_path / "run", [np.zeros((6, 4), np.uint8)])
    with pytest.raises(InputError, match="has labels of 4 x 6 pixels, the ground truth of 6 x 4 pixels"):
        metric.match(run, truth, CLASSES, Evaluation())


def test_a_file_of_labels_that_is_gone_is_refused(tmp_path: Path) -> None:
    metric = find_metric("segmentation3d")
    labels = np.zeros(3, np.uint8)
    truth = metric.ground_truth(frames(tmp_path, [labels], [np.zeros((3, 4))], 4), CLASSES, CLASSES)
    (tmp_path / "0.labels.bin").unlink()
    with pytest.raises(InputError, match=r"0\.labels\.bin: can't be read"):
        metric.match(point_run(tmp_path / "run", [labels]), truth, CLASSES, Evaluation())


def test_without_points_there_are_no_rings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metric = find_metric("segmentation3d")
    labels = np.zeros(3, np.uint8)
    truth = metric.ground_truth(frames(tmp_path, [labels], [np.zeros((3, 4))], 4), CLASSES, CLASSES)
    (tmp_path / "0.points.bin").unlink()
    found = metric.evaluate(metric.match(point_run(tmp_path / "run", [labels]), truth, CLASSES, Evaluation()))
    assert (found["rings"], found["overall"]["mIoU"]) == ({}, 1.0)
    assert "no scores by distance" in caplog.text


def test_what_is_left_out_without_points_is_told_beforehand(tmp_path: Path) -> None:
    labels = np.zeros(3, np.uint8)
    samples = frames(tmp_path, [labels, None], [np.zeros((3, 4))] * 2, 4)
    alone, beside = (find_metric(task) for task in ("segmentation3d", "detection3d+segmentation3d"))
    (tmp_path / "1.points.bin").unlink()
    assert left_out(alone, samples) == left_out(beside, samples) == [], "the frame without labels counts nowhere"
    (tmp_path / "0.points.bin").unlink()
    assert left_out(alone, samples) == ["scores by distance"]
    assert left_out(beside, samples) == ["segmentation3d/scores by distance"]
    assert left_out(find_metric("detection3d"), samples) == []


def test_memory_does_not_grow_with_the_frames(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels, points = some_labels(rng, 50_000, 4), rng.uniform(-95, 95, (50_000, 4)).astype(np.float32)
    metric = find_metric("segmentation3d")
    peaks = []
    for count in (4, 16):
        samples = frames(tmp_path / f"data{count}", [labels] * count, [points] * count, 4)
        truth = metric.ground_truth(samples, CLASSES, CLASSES)
        run = point_run(tmp_path / f"run{count}", [labels] * count)
        tracemalloc.start()
        metric.evaluate(metric.match(run, truth, CLASSES, Evaluation()))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 50_000
