"""2D detection: boxes in an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from shared.arrays import Bool, Float32, Float64, Int64
from shared.geometry import overlaps_2d
from shared.metrics.agreement import mean_average_precisions
from shared.metrics.matching import Pairs, group_ids, match_greedily
from shared.pairing import Pairing, pair_nearest
from shared.tasks import KEPT_SCORE, ErrorKind, QuickMetric, Rows, RowsTask, filled_column

if TYPE_CHECKING:
    from shared.data.types import ImageSample


#: Boxes that overlap less than this (intersection over union) are not the same box: above it, a box of one run has at
#: most one partner among boxes that don't overlap by half themselves.
MATCH_OVERLAP = 0.5


@dataclass(frozen=True)
class Boxes2D(Rows):
    """2D boxes of one image, in pixels of the image as it is stored. Rows are parallel.

    Attributes:
        corners: (N, 4) float32, left, top, right, bottom; the top left corner of the image is (0, 0).
        labels: (N,) int64, index into the class list.
        scores: (N,) float32 in [0, 1]; ones for ground truth.
    """

    corners: Float32
    labels: Int64
    scores: Float32

    WIDTHS: ClassVar[Mapping[str, int | None]] = {"corners": 4}

    @staticmethod
    def empty() -> Boxes2D:
        """No boxes."""
        return Boxes2D.build(np.zeros((0, 4)))

    @staticmethod
    def build(
        corners: npt.ArrayLike, labels: npt.ArrayLike | None = None, scores: npt.ArrayLike | None = None
    ) -> Boxes2D:
        """Boxes from anything array-like; labels default to 0, scores to 1."""
        array = np.asarray(corners, np.float32).reshape(-1, 4)
        count = len(array)
        return Boxes2D(array, filled_column(count, labels, 0, np.int64), filled_column(count, scores, 1.0, np.float32))


class Detection2D(RowsTask[Boxes2D]):
    """2D detection.

    Boxes are the same when they overlap by `MATCH_OVERLAP`. ``corner`` is the largest difference of a coordinate.
    """

    container = Boxes2D
    view = "image"
    errors: ClassVar = {
        "corner": ErrorKind("px", 0.1, 1.0, 2.0, 8.0),
        "score": ErrorKind("", 0.001, 0.01, 0.02, 0.1),
    }
    shifts: ClassVar = {
        "left": "corner",
        "top": "corner",
        "right": "corner",
        "bottom": "corner",
        "confidence": "score",
    }
    operating_score = KEPT_SCORE
    metric = "mAP"

    def empty(self) -> Boxes2D:
        """No boxes."""
        return Boxes2D.empty()

    def pair(self, reference: Boxes2D, test: Boxes2D) -> Pairing:
        """Boxes by their overlap."""
        return pair_nearest(
            reference,
            test,
            finite=_finite,
            distances=_distances,
            reach=1.0 - MATCH_OVERLAP,
            errors=_errors,
            shifts=_shifts,
        )

    def labels_of(self, sample: ImageSample, to_model: Int64) -> Boxes2D | None:
        """What a model has to find: without boxes that are to be ignored."""
        if sample.labels is None:
            return None
        boxes = replace(sample.labels.boxes, labels=to_model[sample.labels.boxes.labels])
        return boxes.select((boxes.labels >= 0) & ~sample.labels.ignored)

    def agreement(self, truth: Iterable[Boxes2D], results: Iterable[Boxes2D]) -> dict[str, float]:
        """``mAP`` at an overlap of one half, without classes that the truth lacks."""
        right = [boxes.select(_finite(boxes)) for boxes in truth]
        given = [boxes.select(_finite(boxes)) for boxes in results]
        truth_labels, labels, scores = (
            np.concatenate([getattr(boxes, column) for boxes in (Boxes2D.empty(), *images)])
            for images, column in ((right, "labels"), (given, "labels"), (given, "scores"))
        )
        order = np.argsort(-scores.astype(np.float64), kind="stable")
        images = np.repeat(np.arange(len(given)), [len(boxes) for boxes in given])
        matched = match_greedily(
            _overlapping(given, right), group_ids(images, labels), len(truth_labels), order, np.array([MATCH_OVERLAP])
        )
        hits, num_truths = matched >= 0, Counter(truth_labels.tolist())
        credits = {"mAP": lambda level: hits[level].astype(np.float64)}
        return mean_average_precisions(scores, labels, order, hits, num_truths, credits, least=0.0)

    def quick_metric(
        self, samples: Sequence[ImageSample], to_model: Int64, classes: Sequence[str]
    ) -> QuickMetric[Boxes2D]:
        """The evaluator's headline: Pascal VOC's mAP at an overlap of one half, as mmdet computes it."""
        from shared.metrics import voc  # not above: it takes boxes of this module
        from shared.metrics.labeled_image import labels_of_model

        truths = [labels_of_model(sample.labels, to_model) for sample in samples if sample.labels is not None]

        def score(predictions: Sequence[Boxes2D]) -> float:
            matches = voc.match(predictions, truths, len(classes))
            return voc.mean_ap([voc.score(each) for each in matches]) or 0.0

        return QuickMetric("mAP", score)


def _finite(boxes: Boxes2D) -> Bool:
    """(N,) boxes without NaN and infinities."""
    return np.asarray(np.isfinite(boxes.corners).all(axis=1) & np.isfinite(boxes.scores))


def _distances(reference: Boxes2D, test: Boxes2D) -> Float64:
    """(N, M) one minus intersection over union; 1 for boxes without area."""
    return np.asarray(1.0 - overlaps_2d(reference.corners, test.corners))


def _errors(reference: Boxes2D, test: Boxes2D) -> dict[str, Float64]:
    """Errors of K pairs, (K,) each, see `Detection2D`."""
    corner = np.abs(test.corners.astype(np.float64) - reference.corners)
    return {
        "corner": corner.max(axis=1, initial=0.0),
        "score": np.abs(test.scores.astype(np.float64) - reference.scores),
    }


def _shifts(reference: Boxes2D, test: Boxes2D) -> dict[str, Float64]:
    """Signed differences of K pairs, (K,) each: of the four sides, and of the score."""
    sides = (test.corners.astype(np.float64) - reference.corners).T
    return {
        **dict(zip(("left", "top", "right", "bottom"), sides, strict=True)),
        "confidence": test.scores.astype(np.float64) - reference.scores,
    }


def _overlapping(results: Sequence[Boxes2D], truths: Sequence[Boxes2D]) -> Pairs:
    """Pairs of one image and label that may be the same box, with their distances; rows count over all images."""
    parts = []
    first_result = first_truth = 0
    for given, right in zip(results, truths, strict=True):
        distances = _distances(given, right)
        near = (distances < 1.0 - MATCH_OVERLAP) & (given.labels[:, None] == right.labels[None])
        rows, columns = np.nonzero(near)
        parts.append((rows + first_result, columns + first_truth, distances[near]))
        first_result, first_truth = first_result + len(given), first_truth + len(right)
    if not parts:
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    return Pairs(*(np.concatenate(columns) for columns in zip(*parts, strict=True))).in_order()


TASK = Detection2D()
