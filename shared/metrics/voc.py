"""Pascal VOC's average precision as mmdet's ``VOCMetric`` reports it, which is what AWML's YOLOX configs use.

Per class: detections by falling score; each takes the labeled box of its class and image that it overlaps most, and is
right if they overlap by half at least (IoU >= 0.5) and no better detection has that box yet. AP is the mean, over the
recalls 0, 0.1, ..., 1, of the best precision at that recall or a higher one (VOC 2007). Widths and heights count the
last pixel (``x2 - x1 + 1``), as in mmdet 1. Classes without a labeled box are left out of the mean. Source: mmdet 3.3,
``mmdet/evaluation/functional/mean_ap.py``; M. Everingham et al., "The Pascal visual object classes challenge", 2010.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.arrays import Bool, Float32, Float64, Int64
from shared.data.types import ImageLabels
from shared.tasks.detection2d import Boxes2D

IOU_THRESHOLD = 0.5
# As mmdet makes them: 0.30000000000000004 among them, which a recall of three in ten does not reach.
_RECALLS = np.arange(0, 1 + 1e-3, 0.1)
# mmdet's guards against division by zero.
_SMALLEST_UNION = np.float32(1e-6)
_SMALLEST_COUNT = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class ClassMatches:
    """Detections of one class over all images, by falling score, and how many boxes there were to find.

    Attributes:
        frames: (K,) position of each detection's image.
        scores: (K,) float32.
        right: (K,) bool, matched.
        wrong: (K,) bool; neither right nor wrong: it hit an ignored box.
        wanted: (F,) labeled boxes of each image.
    """

    frames: Int64
    scores: Float32
    right: Bool
    wrong: Bool
    wanted: Int64


@dataclass(frozen=True)
class ClassScore:
    """The metric of one class.

    Attributes:
        ap: average precision, None without labeled boxes.
        wanted, detections: how many boxes there were, and how many were given.
        recall: share of the boxes that was found.
        best_f1: greatest harmonic mean of precision and recall, and the score threshold that gives it; None where
            nothing was found.
    """

    ap: float | None
    wanted: float
    detections: float
    recall: float | None
    best_f1: tuple[float, float] | None


def match(predictions: Sequence[Boxes2D], truths: Sequence[ImageLabels], num_classes: int) -> list[ClassMatches]:
    """Match every class.

    Args:
        predictions: per image.
        truths: per image.
        num_classes: labels are below this.
    """
    return [_match_class(predictions, truths, label) for label in range(num_classes)]


def _match_class(predictions: Sequence[Boxes2D], truths: Sequence[ImageLabels], label: int) -> ClassMatches:
    frames, scores, rights, wrongs, wanted = [], [], [], [], []
    for frame, (predicted, truth) in enumerate(zip(predictions, truths, strict=True)):
        found = predicted.select(predicted.labels == label)
        own = truth.boxes.labels == label
        # mmdet lists the ignored boxes last: of equal overlaps the first counts.
        listed = np.concatenate([np.flatnonzero(own & ~truth.ignored), np.flatnonzero(own & truth.ignored)])
        ignored = truth.ignored[listed]
        right, wrong = _judge(found, truth.boxes.corners[listed], ignored)
        frames.append(np.full(len(found), frame, np.int64))
        scores.append(found.scores)
        rights.append(right)
        wrongs.append(wrong)
        wanted.append(int((~ignored).sum()))
    all_scores = np.concatenate([np.zeros(0, np.float32), *scores])
    order = np.argsort(-all_scores, kind="stable")
    return ClassMatches(
        frames=np.concatenate([np.zeros(0, np.int64), *frames])[order],
        scores=all_scores[order],
        right=np.concatenate([np.zeros(0, np.bool_), *rights])[order],
        wrong=np.concatenate([np.zeros(0, np.bool_), *wrongs])[order],
        wanted=np.array(wanted, np.int64),
    )


def _judge(found: Boxes2D, corners: Float32, ignored: Bool) -> tuple[Bool, Bool]:
    """Which detections of one class and image are right, and which are wrong."""
    right, wrong = np.zeros(len(found), np.bool_), np.zeros(len(found), np.bool_)
    if not len(corners):
        return right, ~wrong
    if not len(found):
        return right, wrong
    overlaps = legacy_overlaps(found.corners, corners)
    best = overlaps.argmax(axis=1)
    enough = overlaps.max(axis=1) >= IOU_THRESHOLD
    taken = np.zeros(len(corners), np.bool_)
    for row in np.argsort(-found.scores, kind="stable"):
        if not enough[row]:
            wrong[row] = True
        elif not ignored[best[row]]:
            right[row], wrong[row] = not taken[best[row]], taken[best[row]]
            taken[best[row]] = True
    return right, wrong


def legacy_overlaps(first: Float32, second: Float32) -> Float32:
    """(N, M) float32 intersection over union of corners (N, 4) and (M, 4), the last pixels included."""
    one = np.float32(1)
    areas = [(boxes[:, 2] - boxes[:, 0] + one) * (boxes[:, 3] - boxes[:, 1] + one) for boxes in (first, second)]
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    sides = np.maximum(high - low + one, np.float32(0))
    shared = sides[..., 0] * sides[..., 1]
    union = np.maximum(areas[0][:, None] + areas[1][None] - shared, _SMALLEST_UNION)
    return np.asarray(shared / union, np.float32)


def score(matches: ClassMatches, copies: Int64 | None = None) -> ClassScore:
    """The metric of one class.

    Args:
        matches: its detections.
        copies: (F,) how often each image counts; None: once.
    """
    weights = np.ones(len(matches.wanted), np.int64) if copies is None else copies
    wanted = int((matches.wanted * weights).sum())
    weight = weights[matches.frames]
    right = np.cumsum(matches.right * weight).astype(np.float64)
    wrong = np.cumsum(matches.wrong * weight).astype(np.float64)
    recalls = right / max(wanted, _SMALLEST_COUNT)
    precisions = right / np.maximum(right + wrong, _SMALLEST_COUNT)
    detections = float(weight.sum())
    if not wanted:
        return ClassScore(None, 0, detections, None, None)
    # The best precision from here on; recalls don't fall, so that "at this recall or a higher one" is a tail.
    ahead = np.maximum.accumulate(precisions[::-1])[::-1]
    first = np.searchsorted(recalls, _RECALLS, side="left")
    reached = first < len(ahead)
    ap = float(ahead[first[reached]].sum() / len(_RECALLS))
    return ClassScore(
        ap, wanted, detections, float(recalls[-1]) if len(recalls) else 0.0, _best_f1(matches, recalls, precisions)
    )


def _best_f1(matches: ClassMatches, recalls: Float64, precisions: Float64) -> tuple[float, float] | None:
    total = recalls + precisions
    f1 = np.divide(2 * recalls * precisions, total, out=np.zeros_like(total), where=total > 0)
    if not len(f1) or f1.max() == 0:
        return None
    best = int(f1.argmax())
    return float(f1[best]), float(matches.scores[best])


def mean_ap(scores: Sequence[ClassScore]) -> float | None:
    """Mean over the classes that have labeled boxes; None if there are none."""
    known = [value.ap for value in scores if value.ap is not None]
    return float(np.mean(known)) if known else None
