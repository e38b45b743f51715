"""Labels of points and pixels as tasks: stored, laid side by side, and what two runs must not differ by."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluator.metrics import find_metric
from shared.config.check_sections import Evaluation
from shared.data.labels import labels_in
from shared.errors import UsageError
from shared.metrics.confusion import UNLABELED, of_labels
from shared.tasks import available, find
from shared.tasks.segmentation2d import ClassMask
from shared.tasks.segmentation3d import PointClasses
from tests.support.segmentation import CLASSES, frames, images, point_run, run_of, some_labels, wrong_here_and_there
from verifier.compare import compare_runs
from verifier.overrides import apply_overrides
from verifier.tolerances import POLICIES, default_tolerance, judge, tolerance_from_json


def _probabilities(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """(..., C) that sum up to 1."""
    logits = 4 * np.random.default_rng(seed).normal(size=(*shape, len(CLASSES)))
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def test_classes_of_probabilities() -> None:
    points = PointClasses.of_probabilities([[0.2, 0.7, 0.1], [0.4, 0.2, 0.4]])
    assert points.labels.tolist() == [1, 0]
    np.testing.assert_allclose(points.scores, [0.7, 0.4], atol=1e-7)
    np.testing.assert_allclose(points.margins, [0.5, 0.0], atol=1e-7)
    mask = ClassMask.of_probabilities(np.array([[[0.2, 0.7]], [[0.8, 0.3]]]))
    assert (mask.labels.tolist(), mask.margins.tolist()) == ([[1, 0]], [[153, 102]])


def test_runs_keep_them(tmp_path: Path) -> None:
    points = [PointClasses.of_probabilities(_probabilities(n, (n,))) for n in (5, 0, 3)]
    run = run_of(tmp_path / "points", "segmentation3d", points)
    for index, wanted in enumerate(points):
        found = run.predictions(index, PointClasses)
        for name in PointClasses.columns():
            np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    masks = [ClassMask.of_probabilities(np.moveaxis(_probabilities(1, shape), -1, 0)) for shape in ((4, 6), (3, 2))]
    run = run_of(tmp_path / "masks", "segmentation2d", masks)
    for index, mask in enumerate(masks):
        np.testing.assert_array_equal(run.predictions(index, ClassMask).labels, mask.labels)
        np.testing.assert_array_equal(run.predictions(index, ClassMask).margins, mask.margins)


@pytest.mark.parametrize("task", available())
def test_answers_have_a_length(task: str) -> None:
    # What a run says of a sample: how many results there were.
    assert len(find(task).empty()) == 0
    assert len(ClassMask.build(np.zeros((4, 6)))) == 24


@pytest.mark.parametrize("arrays", [{"labels": np.zeros(3, np.uint8)}, {"other": np.zeros(3)}])
def test_other_arrays_are_no_mask(arrays: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a mask has labels, margins and size"):
        find("segmentation2d").from_arrays(arrays)


def test_labels_get_the_models_classes(tmp_path: Path) -> None:
    to_model = labels_in(["tree", "road"], CLASSES)
    labels = np.array([0, 1, 3, UNLABELED], np.uint8)
    [sample, unlabeled] = frames(tmp_path, [labels, None], [np.zeros((4, 4)), np.zeros((0, 4))], len(CLASSES))
    points = find("segmentation3d")
    assert points.labels_of(sample, to_model).labels.tolist() == [1, UNLABELED, 0, UNLABELED]
    assert points.labels_of(unlabeled, to_model) is None
    [image, bare] = images(tmp_path, [labels.reshape(2, 2), None], len(CLASSES))
    masks = find("segmentation2d")
    assert masks.labels_of(image, to_model).labels.tolist() == [[1, UNLABELED], [0, UNLABELED]]
    assert masks.labels_of(bare, to_model) is None


def test_agreement_is_the_evaluators(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    truth = [some_labels(rng, length, len(CLASSES)) for length in (300, 0, 200)]
    given = [wrong_here_and_there(rng, labels, len(CLASSES)) for labels in truth]
    found = find("segmentation3d").agreement(map(PointClasses.build, truth), map(PointClasses.build, given))
    metric = find_metric("segmentation3d")
    samples = frames(tmp_path / "data", truth, [np.zeros((len(labels), 4)) for labels in truth], len(CLASSES))
    labeled = metric.ground_truth(samples, CLASSES, CLASSES)
    result = metric.evaluate(metric.match(point_run(tmp_path / "run", given), labeled, CLASSES, Evaluation()))
    assert found == pytest.approx({name: result["overall"][name] for name in ("mIoU", "accuracy")}, abs=1e-12)
    shaped = [[ClassMask.build(each.reshape(-1, 1)) for each in side] for side in (truth, given)]
    assert find("segmentation2d").agreement(*shaped) == found
    assert find("segmentation3d").agreement([], []) == {}


# -- what two runs must not differ by ---------------------------------------------------------------------------------


def _shifted(points: np.ndarray) -> np.ndarray:
    return np.roll(points, 1, axis=0)


def _swapped(points: np.ndarray) -> np.ndarray:
    return points[:, [0, 1, 3, 2]]  # the two classes with few points


def _dropped(points: np.ndarray) -> np.ndarray:
    return points[:-1]


def _judged(folder: Path, reference: list[Any], test: list[Any], task: str, policy: str = "fp32") -> list[str]:
    runs = [run_of(folder / name, task, answers) for name, answers in (("one", reference), ("other", test))]
    compared = compare_runs(*runs, score_threshold=None)
    lines = judge(compared, default_tolerance(policy, find(task)))
    return [line for line in lines if line != "no raw output was compared"]


def _scan(seed: int) -> np.ndarray:
    """(N, C) of a scan in the order of its rays. As in the demo's scans, every eleventh point or so has another class
    than the one before it; persons and trees have few points.
    """
    rng = np.random.default_rng(seed)
    lengths = {0: (8, 24), 1: (4, 16), 2: (2, 5), 3: (2, 5)}
    labels = np.concatenate(
        [np.full(rng.integers(*lengths[label]), label) for label in rng.choice(4, 200, p=[0.55, 0.41, 0.02, 0.02])]
    )
    logits = rng.normal(size=(len(labels), len(CLASSES)))
    logits[np.arange(len(labels)), labels] += 5
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("policy", list(POLICIES))
@pytest.mark.parametrize("fault", [_shifted, _swapped, _dropped])
def test_a_planted_fault_is_seen_in_every_precision(tmp_path: Path, fault: Any, policy: str) -> None:
    scans = [_scan(seed) for seed in range(10)]
    # Nine scans without a fault, of the last one the last point dropped.
    given = [*scans[:-1], fault(scans[-1])] if fault is _dropped else [fault(scan) for scan in scans]
    points = [[PointClasses.of_probabilities(scan) for scan in side] for side in (scans, given)]
    masks = [[ClassMask.of_probabilities(scan.T[..., None]) for scan in side] for side in (scans, given)]
    names = {
        _shifted: "results surely of another class, share",
        _swapped: "results IoU of person",
        _dropped: "results: 1 samples with another number of points or pixels",
    }
    for task, answers in (("segmentation3d", points), ("segmentation2d", masks)):
        lines = _judged(tmp_path / task, *answers, task, policy)
        assert any(line.startswith(names[fault]) for line in lines), lines
        assert _judged(tmp_path / f"{task} again", answers[0], answers[0], task, policy) == []


@pytest.mark.parametrize("policy", list(POLICIES))
@pytest.mark.parametrize("axis", [0, 1])
def test_a_mask_that_is_shifted_by_a_pixel_is_seen_in_every_precision(tmp_path: Path, axis: int, policy: str) -> None:
    """A car before a horizon: a column turns 0.26 % of the pixels, and leaves the car an IoU of 0.94."""
    labels = np.zeros((96, 160), np.uint8)
    labels[40:], labels[60:80, 50:80] = 1, 2
    masks = [ClassMask.build(each) for each in (labels, np.roll(labels, 1, axis))]
    lines = _judged(tmp_path, masks[:1], masks[1:], "segmentation2d", policy)
    assert any(line.startswith("results surely of another class, share") for line in lines), lines


def test_limits_of_classes_can_be_given() -> None:
    task = find("segmentation3d")
    limits = apply_overrides(default_tolerance("int8", task), ["results.class_iou=0.3", "results.sure_flips=0.1"], [])
    assert (limits.results.class_iou, limits.results.sure_flips) == (0.3, 0.1)
    with pytest.raises(UsageError, match=r"there is no limit 'results\.class_iou'"):
        apply_overrides(default_tolerance("int8", find("detection3d")), ["results.class_iou=0.3"], [])
    stored = asdict(default_tolerance("int8", task))
    assert tolerance_from_json(stored, task) == default_tolerance("int8", task)


def test_a_score_that_drifts_is_seen(tmp_path: Path) -> None:
    right = PointClasses.of_probabilities(_probabilities(0, (500,)))
    off = PointClasses(right.labels, right.scores - np.float32(0.005), right.margins)
    lines = _judged(tmp_path, [right], [off], "segmentation3d")
    assert [line.split(":")[0] for line in lines] == ["results score", "results shifted, confidence"]


def test_rounding_is_no_difference(tmp_path: Path) -> None:
    right = _probabilities(0, (2000,))
    right[:50] = [0.4, 0.4, 0.1, 0.1]  # either class may win
    noise = np.random.default_rng(1).uniform(-5e-4, 5e-4, right.shape)
    points = [PointClasses.of_probabilities(each) for each in (right, right + noise)]
    assert (points[0].labels != points[1].labels).sum() > 10
    assert _judged(tmp_path / "3d", points[:1], points[1:], "segmentation3d") == []
    masks = [ClassMask.of_probabilities(np.moveaxis(each[:, None], -1, 0)) for each in (right, right + noise)]
    assert _judged(tmp_path / "2d", masks[:1], masks[1:], "segmentation2d") == []


def test_a_score_that_is_no_number_is_seen(tmp_path: Path) -> None:
    right = PointClasses.of_probabilities(_probabilities(0, (9,)))
    broken = PointClasses(right.labels, np.where(np.arange(9) == 4, np.nan, right.scores), right.margins)
    assert "results: 2 with NaN or Inf" in _judged(tmp_path, [right], [broken], "segmentation3d")


def test_a_comparison_of_labels_in_words(tmp_path: Path) -> None:
    margins = [0.001] * 5 + [0.9] * 30 + [0.1] * 10
    answers = [
        PointClasses.build([label] * 5 + [2] * 30 + [other] * 10, None, margins) for label, other in ((0, 1), (3, 2))
    ]
    runs = [run_of(tmp_path / name, "segmentation3d", [answer]) for name, answer in zip("ab", answers, strict=True)]
    results = compare_runs(*runs, score_threshold=None)["results"]
    assert (results["matched"], results["label_flips"]) == (30, 10)
    assert of_labels(results) == ", 0 of them sure; 5 decided by a hair; least IoU of a class 0.0000 (car)"
    surely = PointClasses.build([3] * 30 + [1] * 10), PointClasses.build([3] * 20 + [1] * 20)
    runs = [run_of(tmp_path / name, "segmentation3d", [answer]) for name, answer in zip("cd", surely, strict=True)]
    results = compare_runs(*runs, score_threshold=None)["results"]
    assert of_labels(results) == ", 10 of them sure; 0 decided by a hair; least IoU of a class 0.5000 (car)"
