"""Suppression of 2D boxes: against a loop over pairs, classes apart or together, whole pixels, and mmcv's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.models.yolox.nms import suppress, suppress_by_class, to_whole_pixels


def overlap(a: np.ndarray, b: np.ndarray, offset: int = 0) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    union = sum(areas) - width * height
    return width * height / union if union else 0.0


def one_by_one(
    corners: np.ndarray, scores: np.ndarray, labels: np.ndarray | None, threshold: float, offset: int = 0
) -> list[int]:
    kept: list[int] = []
    for row in np.argsort(-scores, kind="stable").tolist():
        rivals = [other for other in kept if labels is None or labels[other] == labels[row]]
        if all(overlap(corners[row], corners[other], offset) <= threshold for other in rivals):
            kept.append(row)
    return kept


def boxes(seed: int, count: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    # Multiples of a quarter: exact in float32, also after a shift by class.
    start = rng.integers(0, 200, (count, 2)) / 4
    size = rng.integers(0, 160, (count, 2)) / 4
    corners = np.concatenate([start, start + size], axis=1).astype(np.float32)
    # Distinct scores: the order of equal ones is nobody's promise.
    scores = rng.permutation(count).astype(np.float32) / max(count, 1)
    return corners, scores, rng.integers(0, classes, count)


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(0, 60), st.sampled_from([0.3, 0.45, 0.65, 0.7]), st.integers(0, 1))
def test_against_a_loop(seed: int, count: int, threshold: float, offset: int) -> None:
    corners, scores, labels = boxes(seed, count)
    assert suppress(corners, scores, threshold, offset).tolist() == one_by_one(corners, scores, None, threshold, offset)
    kept = suppress_by_class(corners, scores, labels, threshold, offset)
    assert kept.tolist() == one_by_one(corners, scores, labels, threshold, offset)


def test_megviis_boxes_are_a_pixel_wider() -> None:
    # Two pixels of four each, or three of five: a third, or a half.
    corners = np.array([[0, 0, 4, 0.5], [2, 0, 6, 0.5]], np.float32)
    scores = np.array([0.9, 0.8], np.float32)
    assert len(suppress(corners, scores, 0.4)) == 2
    assert len(suppress(corners, scores, 0.4, 1)) == 1


def test_two_classes_at_one_place() -> None:
    corners = np.array([[0, 0, 10, 10], [0, 0, 10, 10]], np.float32)
    scores = np.array([0.4, 0.9], np.float32)
    labels = np.array([0, 1])
    assert suppress_by_class(corners, scores, labels, 0.5).tolist() == [1, 0]
    assert suppress(corners, scores, 0.5).tolist() == [1]


def test_exactly_at_the_threshold_stays() -> None:
    corners = np.array([[0, 0, 2, 1], [1, 0, 3, 1]], np.float32)  # a third
    scores = np.array([0.9, 0.8], np.float32)
    assert len(suppress(corners, scores, 0.34)) == 2
    assert len(suppress(corners, scores, 0.33)) == 1


def test_many_boxes_go_class_by_class() -> None:
    corners, scores, labels = boxes(5, 12_000, classes=80)
    # So many boxes in 50 pixels leave few: the point is that both ways are the same.
    kept = suppress_by_class(corners, scores, labels, 0.5)
    expected = np.concatenate(
        [rows[suppress(corners[rows], scores[rows], 0.5)] for rows in (np.flatnonzero(labels == c) for c in range(80))]
    )
    assert set(kept.tolist()) == set(expected.tolist())
    assert (np.diff(scores[kept]) <= 0).all()


def test_whole_pixels_as_autoware_cuts_them() -> None:
    corners = np.array([[1.9, -1.9, 5.8, 3.2]], np.float32)
    # Left 1, top -1; width 3.9 becomes 3, height 5.1 becomes 5.
    assert to_whole_pixels(corners).tolist() == [[1, -1, 4, 4]]


@pytest.mark.exporter
@pytest.mark.parametrize("seed", range(8))
def test_mmcv_with_its_own_or_our_operator_gives_the_same(seed: int) -> None:
    import torch

    from exporter.mmcv_ops import provide_mmcv_ops

    provide_mmcv_ops()
    from mmcv.ops import batched_nms

    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 600, (400, 2))
    corners = np.concatenate([start, start + rng.uniform(1, 150, (400, 2))], axis=1).astype(np.float32)
    scores = rng.permutation(400).astype(np.float32) / 400
    labels = rng.integers(0, 80, 400)
    for agnostic in (False, True):
        settings_ = {"type": "nms", "iou_threshold": 0.5, "class_agnostic": agnostic}
        _, kept = batched_nms(torch.from_numpy(corners), torch.from_numpy(scores), torch.from_numpy(labels), settings_)
        ours = suppress(corners, scores, 0.5) if agnostic else suppress_by_class(corners, scores, labels, 0.5)
        assert ours.tolist() == kept.tolist()


@pytest.mark.mmcv_ops
@pytest.mark.parametrize("seed", range(8))
def test_the_stand_in_for_mmcvs_operator_gives_what_the_operator_gives(seed: int) -> None:
    import torch
    from mmcv.ops import nms

    from exporter.mmcv_ops import greedy_nms

    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 300, (500, 2))
    corners = np.concatenate([start, start + rng.uniform(1, 150, (500, 2))], axis=1).astype(np.float32)
    scores = rng.permutation(500).astype(np.float32) / 500
    for threshold, offset in ((0.3, 0), (0.65, 1)):
        _, kept = nms(torch.from_numpy(corners), torch.from_numpy(scores), threshold, offset=offset)
        assert greedy_nms(corners, scores, iou_threshold=threshold, offset=offset).tolist() == kept.tolist()
