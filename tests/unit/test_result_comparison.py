"""Decoded results of two runs: partners are found, errors are those of the partners, the rest is counted."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.pairing import match_nearest
from shared.tasks import classification, detection2d, detection3d
from shared.tasks.classification import ClassScores
from shared.tasks.detection2d import Boxes2D
from shared.tasks.detection3d import MATCH_DISTANCE, Boxes3D
from verifier.results import ResultStatistics


def _boxes(seed: int, count: int = 30) -> Boxes3D:
    """Boxes on a grid of 3 m, as NMS leaves them."""
    rng = np.random.default_rng(seed)
    cells = rng.choice(40 * 40, count, replace=False)
    centers = np.column_stack([cells % 40 * 3.0 - 60, cells // 40 * 3.0 - 60, rng.normal(0, 1, count)])
    return Boxes3D.build(
        centers,
        rng.uniform(0.5, 5, (count, 3)),
        rng.uniform(-np.pi, np.pi, count),
        rng.normal(0, 3, (count, 2)),
        labels=rng.integers(0, 3, count),
        scores=rng.uniform(0.1, 1, count),
    )


def _match(reference: Boxes3D, test: Boxes3D) -> tuple[np.ndarray, np.ndarray]:
    distances = np.linalg.norm(reference.centers[:, None].astype(np.float64) - test.centers[None], axis=2)
    same_label = reference.labels[:, None] == test.labels[None]
    return match_nearest(distances, (distances <= MATCH_DISTANCE) & same_label)


def _summary(reference: Boxes3D, test: Boxes3D) -> dict[str, Any]:
    collected = ResultStatistics(detection3d.TASK)
    collected.add(0, reference, test)
    return collected.summary()


def test_samples_without_pairs_take_no_memory() -> None:
    collected, nothing = ResultStatistics(detection3d.TASK), Boxes3D.empty()
    collected.add(0, nothing, nothing)
    tracemalloc.start()
    for sample in range(200):
        collected.add(sample, nothing, nothing)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 50_000


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_partners_are_found_in_any_order(seed: int) -> None:
    boxes = _boxes(seed)
    order = np.random.default_rng(seed + 1).permutation(len(boxes))
    moved = replace(boxes, centers=boxes.centers + np.float32(0.01)).select(order)
    rows, columns = _match(boxes, moved)
    assert len(rows) == len(boxes)
    assert (order[columns] == rows).all()


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_matching_is_symmetric(seed: int) -> None:
    first, second = _boxes(seed), _boxes(seed + 1)
    rows, columns = _match(first, second)
    back_rows, back_columns = _match(second, first)
    assert set(zip(rows, columns, strict=True)) == set(zip(back_columns, back_rows, strict=True))


def test_nearest_pair_wins_over_order() -> None:
    reference = Boxes3D.build([[0, 0, 0], [0.4, 0, 0]], np.ones((2, 3)), [0, 0])
    test = Boxes3D.build([[0.39, 0, 0]], np.ones((1, 3)), [0])
    rows, columns = _match(reference, test)
    assert (rows.tolist(), columns.tolist()) == ([1], [0])


def test_errors_are_those_of_the_pairs() -> None:
    boxes = _boxes(1)
    changed = replace(
        boxes,
        centers=boxes.centers + np.array([0.03, 0.04, 0], np.float32),
        sizes=boxes.sizes * np.array([1.1, 0.8, 1], np.float32),
        yaws=boxes.yaws - np.float32(2 * np.pi - 0.25),
        velocities=boxes.velocities + np.array([3, 4], np.float32),
        scores=boxes.scores - np.float32(0.05),
    )
    errors = _summary(boxes, changed)["errors"]
    expected = {"center": 0.05, "size": 0.2, "yaw": 0.25, "velocity": 5.0, "score": 0.05}
    assert {name: values["max"] for name, values in errors.items()} == pytest.approx(expected, abs=1e-4)
    assert all(values["pairs"] == len(boxes) for values in errors.values())


def test_unmatched_are_counted_on_their_side_with_scores() -> None:
    boxes = _boxes(2)
    summary = _summary(boxes, boxes.select(np.arange(5, 30)))
    assert (summary["num_reference_unmatched"], summary["num_test_unmatched"]) == (5, 0)
    assert (summary["reference_count"], summary["test_count"], summary["matched"]) == (30, 25, 25)
    assert summary["reference_unmatched"] == sorted(boxes.scores[:5].tolist(), reverse=True)
    far = replace(boxes, centers=boxes.centers + np.float32(0.6))
    assert _summary(boxes, far)["matched"] == 0


def test_label_flips_are_not_unmatched() -> None:
    boxes = _boxes(3)
    labels = boxes.labels.copy()
    labels[:4] = (labels[:4] + 1) % 3
    summary = _summary(boxes, replace(boxes, labels=labels))
    assert (summary["label_flips"], summary["matched"], summary["num_reference_unmatched"]) == (4, 26, 0)


def test_boxes_that_are_not_finite_are_counted_and_left_out() -> None:
    boxes = _boxes(4)
    centers = boxes.centers.copy()
    centers[0, 2] = np.nan
    summary = _summary(boxes, replace(boxes, centers=centers))
    assert (summary["non_finite"], summary["matched"], summary["num_reference_unmatched"]) == (1, 29, 1)


def test_unknown_velocities_agree_only_with_unknown_ones() -> None:
    boxes = _boxes(5)
    unknown = replace(boxes, velocities=np.full_like(boxes.velocities, np.nan))
    assert _summary(unknown, unknown)["known_once"] == 0
    assert "velocity" not in _summary(unknown, unknown)["errors"]
    assert _summary(boxes, unknown)["known_once"] == len(boxes)


def test_empty_frames() -> None:
    empty = Boxes3D.empty()
    assert _summary(empty, empty)["matched"] == 0
    assert _summary(_boxes(6), empty)["num_reference_unmatched"] == 30
    assert _summary(empty, _boxes(6))["num_test_unmatched"] == 30


def test_worst_sample_is_kept() -> None:
    boxes = _boxes(7)
    collected = ResultStatistics(detection3d.TASK)
    for sample, shift in enumerate((0.0, 0.2, 0.1)):
        collected.add(sample, boxes, replace(boxes, centers=boxes.centers + np.float32(shift)))
    assert collected.summary()["worst_sample"] == 1


def _image_boxes(seed: int, count: int = 20) -> Boxes2D:
    """Boxes that don't overlap, as NMS leaves them."""
    rng = np.random.default_rng(seed)
    cells = rng.choice(100, count, replace=False)
    corner = np.column_stack([cells % 10, cells // 10]) * 90.0 + rng.uniform(0, 10, (count, 2))
    corners = np.column_stack([corner, corner + rng.uniform(20, 70, (count, 2))])
    return Boxes2D.build(corners, rng.integers(0, 3, count), rng.uniform(0.1, 1, count))


def test_image_boxes_are_matched_by_overlap() -> None:
    boxes = _image_boxes(0)
    order = np.random.default_rng(1).permutation(len(boxes))
    moved = replace(boxes, corners=boxes.corners + np.float32(0.5), scores=boxes.scores - np.float32(0.02)).select(
        order
    )
    collected = ResultStatistics(detection2d.TASK)
    collected.add(0, boxes, moved)
    collected.add(1, boxes, boxes.select(np.arange(3, 20)))
    summary = collected.summary()
    assert (summary["kind"], summary["matched"], summary["num_reference_unmatched"]) == ("Boxes2D", 37, 3)
    assert summary["errors"]["corner"]["max"] == pytest.approx(0.5, abs=1e-4)
    assert summary["errors"]["score"]["max"] == pytest.approx(0.02, abs=1e-6)
    assert summary["worst_sample"] == 0


def test_image_boxes_of_another_label_or_place_are_not_the_same() -> None:
    boxes = _image_boxes(2)
    collected = ResultStatistics(detection2d.TASK)
    collected.add(0, boxes, replace(boxes, labels=(boxes.labels + 1) % 3))
    collected.add(1, boxes, replace(boxes, corners=boxes.corners + np.float32(80)))
    summary = collected.summary()
    assert (summary["label_flips"], summary["matched"], summary["num_test_unmatched"]) == (20, 0, 20)


def test_image_boxes_without_area_match_nothing() -> None:
    flat = Boxes2D.build([[5, 5, 5, 9]])
    collected = ResultStatistics(detection2d.TASK)
    collected.add(0, flat, flat)
    assert collected.summary()["matched"] == 0


def test_class_scores_are_compared_row_by_row() -> None:
    logits = np.random.default_rng(0).normal(0, 2, (6, 2)).astype(np.float32)
    shifted = logits + np.float32(3)  # the same probabilities
    collected = ResultStatistics(classification.TASK)
    collected.add(0, ClassScores.build(logits), ClassScores.build(shifted))
    assert collected.summary()["errors"]["probability"]["max"] < 1e-6
    swapped = logits.copy()
    swapped[2] = logits[2, ::-1]
    collected.add(1, ClassScores.build(logits), ClassScores.build(swapped))
    collected.add(2, ClassScores.build(logits), ClassScores.build(logits[:5]))
    summary = collected.summary()
    assert (summary["matched"], summary["label_flips"], summary["num_reference_unmatched"]) == (16, 1, 1)


def test_a_label_flip_is_one_of_the_pipelines_own_decision() -> None:
    """Beside a threshold, equal decisions may have other largest logits, and the other way round."""
    reference = ClassScores.build([[0.0, 0.1], [0.0, 0.4]], labels=[0, 0])
    test = ClassScores.build([[0.1, 0.0], [0.0, 0.4]], labels=[0, 1])
    collected = ResultStatistics(classification.TASK)
    collected.add(0, reference, test)
    assert (collected.summary()["label_flips"], collected.summary()["matched"]) == (1, 1)
    assert classification.TASK.agreement([reference], [test]) == {"accuracy": 0.5}


def test_class_scores_that_are_not_finite_are_counted() -> None:
    logits = np.array([[0.0, np.nan], [1.0, 2.0]], np.float32)
    collected = ResultStatistics(classification.TASK)
    collected.add(0, ClassScores.build(logits), ClassScores.build(logits))
    collected.add(1, ClassScores.empty(), ClassScores.empty())
    assert (collected.summary()["non_finite"], collected.summary()["matched"]) == (2, 1)
    # The rows after one that is not finite keep their places.
    collected.add(2, ClassScores.build(logits), ClassScores.build(np.array([[0, 1], [1, 2]], np.float32)))
    assert (collected.summary()["matched"], collected.summary()["num_test_unmatched"]) == (2, 1)


def _row(places: list[float], scores: list[float], label: int = 0) -> Boxes3D:
    """Boxes along x [m]."""
    centers = [[place, 0.0, 0.0] for place in places]
    return Boxes3D.build(centers, np.ones((len(places), 3)), np.zeros(len(places)), labels=[label] * len(places),
                         scores=scores)  # fmt: skip


def test_ties_that_a_suppression_resolves_otherwise_are_paired_as_sets() -> None:
    """A row of cells with one score, and every third of them kept from another start, as circle NMS does it."""
    sure = [[-20.0, -10.0], [0.9, 0.8]]
    reference = _row(sure[0] + [1.0, 4.0, 7.0], sure[1] + [0.5, 0.5, 0.5])
    test = _row(sure[0] + [2.5, 5.5, 8.5], sure[1] + [0.5, 0.500002, 0.5])
    found = _summary(reference, test)
    assert (found["matched"], found["tied"]) == (2, 3)
    assert (found["num_reference_unmatched"], found["num_test_unmatched"]) == (0, 0)


def test_a_tie_at_a_limit_of_boxes_is_recognized() -> None:
    reference, test = _row([0.0, 10.0, 20.0], [0.9, 0.8, 0.3]), _row([0.0, 10.0, 30.0], [0.9, 0.8, 0.3])
    assert _summary(reference, test)["tied"] == 1
    fewer = _row([0.0, 30.0], [0.9, 0.3])
    assert _summary(reference, fewer)["tied"] == 0
    above = _row([0.0, 15.0, 20.0], [0.9, 0.8, 0.3])
    assert (_summary(reference, above)["tied"], _summary(reference, above)["num_test_unmatched"]) == (0, 1)


def test_boxes_in_the_wrong_place_are_no_ties() -> None:
    boxes = _boxes(3)
    moved = replace(boxes, centers=boxes.centers + np.float32([1.0, 0, 0]))
    found = _summary(boxes, moved)
    assert (found["tied"], found["num_test_unmatched"]) == (0, len(boxes))
    alone = _row([0.0], [0.5])
    assert _summary(alone, _row([1.0], [0.5]))["tied"] == 0


def test_other_labels_and_other_scores_are_no_ties() -> None:
    reference = _row([1.0, 4.0], [0.5, 0.5])
    assert _summary(reference, _row([2.5, 5.5], [0.5, 0.5], label=1))["tied"] == 0
    assert _summary(reference, _row([2.5, 5.5], [0.5001, 0.5001]))["tied"] == 0
    # Where a sigmoid is flat, rounding moves scores less: many low scores are close, and not equal.
    low = _row([1.0, 4.0], [0.01, 0.01])
    assert _summary(low, _row([2.5, 5.5], [0.010002, 0.010002]))["tied"] == 0
    assert _summary(low, _row([2.5, 5.5], [0.0100002, 0.01]))["tied"] == 2


def test_what_is_kept_below_a_tie_hangs_on_it_and_what_is_above_does_not() -> None:
    """A fourth of the set, and a box that has room in one run only; but also one that the other run lost."""
    reference = _row([1.0, 4.0, 6.9, 40.0], [0.5, 0.5, 0.4, 0.6])
    test = _row([2.5, 5.5, 8.5], [0.5, 0.5, 0.5])
    found = _summary(reference, test)
    assert (found["tied"], found["below_ties"]) == (2, 2)
    assert (found["num_reference_unmatched"], found["num_test_unmatched"]) == (1, 0)
    assert found["reference_unmatched"] == pytest.approx([0.6])


def test_label_flips_below_a_tie_hang_on_it_too() -> None:
    reference, test = _row([1.0, 4.0, 20.0], [0.5, 0.5, 0.4]), _row([2.5, 5.5, 20.0], [0.5, 0.5, 0.4])
    flipped = replace(test, labels=np.array([0, 0, 1]))
    found = _summary(reference, flipped)
    assert (found["label_flips"], found["tied"], found["below_ties"]) == (0, 2, 2)
    above = replace(flipped, scores=np.array([0.5, 0.5, 0.6], np.float32))
    assert _summary(reference, above)["label_flips"] == 1
