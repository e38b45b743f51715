"""Pascal VOC's AP: by hand, what ignoring and repeats do, weights, and mmdet's own numbers."""

from __future__ import annotations

import numpy as np
import pytest

from shared.data.types import ImageLabels
from shared.metrics import voc
from shared.tasks.detection2d import Boxes2D

UNIT = [0, 0, 9, 9]  # ten pixels wide, the last one counted


def truth(corners: list, labels: list | None = None, ignored: list | None = None) -> ImageLabels:
    boxes = Boxes2D.build(np.array(corners, np.float32).reshape(-1, 4), labels)
    count = len(boxes)
    return ImageLabels(boxes, np.array(ignored if ignored is not None else [False] * count, np.bool_), np.ones(count))


def found(corners: list, scores: list, labels: list | None = None) -> Boxes2D:
    return Boxes2D.build(np.array(corners, np.float32).reshape(-1, 4), labels, scores)


def ap(predictions: list[Boxes2D], truths: list[ImageLabels]) -> float | None:
    return voc.score(voc.match(predictions, truths, 1)[0]).ap


def test_overlap_counts_the_last_pixels() -> None:
    boxes = np.array([[0, 0, 9, 9]], np.float32)
    np.testing.assert_allclose(voc.legacy_overlaps(boxes, np.array([[5, 0, 14, 9]], np.float32)), [[50 / 150]])
    np.testing.assert_allclose(voc.legacy_overlaps(boxes, np.array([[9, 9, 9, 9]], np.float32)), [[1 / 100]])


def test_truth_as_predictions_is_one() -> None:
    truths = [truth([UNIT, [20, 20, 40, 30]]), truth([]), truth([UNIT])]
    predictions = [found(t.boxes.corners.tolist(), [0.5] * len(t.boxes)) for t in truths]
    assert ap(predictions, truths) == pytest.approx(1.0)


def test_eleven_points_by_hand() -> None:
    # Two boxes; right, wrong, right: recall 1/2 at precision 1, then 1 at 2/3.
    truths = [truth([UNIT, [50, 50, 59, 59]])]
    predictions = [found([UNIT, [80, 80, 89, 89], [50, 50, 59, 59]], [0.9, 0.8, 0.7])]
    assert ap(predictions, truths) == pytest.approx((6 * 1.0 + 5 * 2 / 3) / 11)


def test_a_recall_of_three_in_ten_misses_mmdets_third_point() -> None:
    truths = [truth([[20 * i, 0, 20 * i + 9, 9] for i in range(10)])]
    predictions = [found([[20 * i, 0, 20 * i + 9, 9] for i in range(3)], [0.9, 0.8, 0.7])]
    # 3 * 0.1 is 0.30000000000000004: points 0, 0.1 and 0.2 only.
    assert ap(predictions, truths) == pytest.approx(3 / 11)


def test_a_second_hit_is_wrong_and_the_second_best_box_is_not_tried() -> None:
    truths = [truth([UNIT, [3, 0, 12, 9]])]
    predictions = [found([UNIT, UNIT], [0.9, 0.8])]
    matches = voc.match(predictions, truths, 1)[0]
    assert matches.right.tolist() == [True, False]
    assert matches.wrong.tolist() == [False, True]


def test_ignored_boxes_are_neither() -> None:
    truths = [truth([UNIT, [50, 50, 59, 59]], ignored=[True, False])]
    predictions = [found([UNIT, UNIT, [50, 50, 59, 59]], [0.9, 0.8, 0.7])]
    matches = voc.match(predictions, truths, 1)[0]
    assert matches.right.tolist() == [False, False, True]
    assert not matches.wrong.any()
    assert matches.wanted.tolist() == [1]


def test_no_truth_no_value_and_left_out_of_the_mean() -> None:
    truths = [truth([UNIT], [1])]
    predictions = [found([UNIT, UNIT], [0.9, 0.8], [0, 1])]
    scores = [voc.score(matches) for matches in voc.match(predictions, truths, 3)]
    assert [score.ap for score in scores] == [None, pytest.approx(1.0), None]
    assert voc.mean_ap(scores) == pytest.approx(1.0)
    assert voc.mean_ap([scores[0]]) is None


def test_best_f1_and_its_threshold() -> None:
    truths = [truth([UNIT, [50, 50, 59, 59]])]
    predictions = [found([UNIT, [50, 50, 59, 59], [80, 80, 89, 89]], [0.9, 0.6, 0.5])]
    f1, threshold = voc.score(voc.match(predictions, truths, 1)[0]).best_f1 or (None, None)
    assert f1 == pytest.approx(1.0)
    assert threshold == pytest.approx(0.6)


def scene(seed: int, images: int = 12, classes: int = 3) -> tuple[list[Boxes2D], list[ImageLabels]]:
    rng = np.random.default_rng(seed)
    # No score occurs twice: the order of equal ones is nobody's promise.
    scores = (rng.permutation(10_000) + 1) / 10_001
    predictions, truths = [], []
    for _ in range(images):
        count = int(rng.integers(0, 7))
        start = rng.uniform(0, 200, (count, 2))
        corners = np.concatenate([start, start + rng.uniform(5, 60, (count, 2))], axis=1)
        labels = rng.integers(0, classes, count)
        truths.append(truth(corners.tolist(), labels.tolist(), (rng.uniform(size=count) < 0.2).tolist()))
        near = np.repeat(corners, 2, axis=0) + rng.normal(0, 6, (2 * count, 4))
        far = rng.uniform(0, 150, (3, 2))
        boxes = np.concatenate([near, np.concatenate([far, far + 30], axis=1)])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        own = np.concatenate([np.repeat(labels, 2), rng.integers(0, classes, 3)])
        scores, mine = scores[len(boxes) :], scores[: len(boxes)]
        predictions.append(found(boxes.tolist(), mine.tolist(), own.tolist()))
    return predictions, truths


def test_copies_count_as_repeated_images() -> None:
    predictions, truths = scene(4)
    copies = np.array([0, 1, 2, 3] * 3)
    order = np.repeat(np.arange(12), copies)
    weighted = voc.match(predictions, truths, 3)
    repeated = voc.match([predictions[i] for i in order], [truths[i] for i in order], 3)
    for one, other in zip(weighted, repeated, strict=True):
        assert voc.score(one, copies).ap == pytest.approx(voc.score(other).ap, abs=0.02)
        assert voc.score(one, copies).recall == pytest.approx(voc.score(other).recall)


@pytest.mark.exporter
@pytest.mark.parametrize("seed", range(10))
def test_mmdet_gives_the_same(seed: int) -> None:
    from exporter.mmcv_ops import provide_mmcv_ops

    provide_mmcv_ops()
    from mmdet.evaluation.functional import eval_map

    predictions, truths = scene(seed)
    detections = [
        [np.column_stack([p.corners, p.scores]).astype(np.float32)[p.labels == label] for label in range(3)]
        for p in predictions
    ]
    annotations = [
        {
            "bboxes": t.boxes.corners[~t.ignored], "labels": t.boxes.labels[~t.ignored],
            "bboxes_ignore": t.boxes.corners[t.ignored], "labels_ignore": t.boxes.labels[t.ignored],
        }
        for t in truths
    ]  # fmt: skip
    mean, classes = eval_map(
        detections, annotations, iou_thr=0.5, eval_mode="11points", use_legacy_coordinate=True, logger="silent", nproc=1
    )
    scores = [voc.score(matches) for matches in voc.match(predictions, truths, 3)]
    for ours, theirs in zip(scores, classes, strict=True):
        assert ours.ap == pytest.approx(float(theirs["ap"]), abs=1e-6)
        assert ours.wanted == theirs["num_gts"]
    assert voc.mean_ap(scores) == pytest.approx(float(mean), abs=1e-6)
