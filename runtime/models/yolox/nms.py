"""Suppression of overlapping 2D boxes, as mmdet, Megvii's demo and Autoware's node do it.

All go through the boxes by falling score and drop those that overlap a better one by more than a threshold. mmdet
compares boxes of one class, in pixels of the image; Megvii's demo compares all, in pixels of the image, each taken for
one pixel wider and higher; Autoware compares all, cut to whole pixels of the network's input.
"""

from __future__ import annotations

import numpy as np

from shared.arrays import Float32, Int64

# mmcv's ``batched_nms`` moves classes apart in one list of boxes up to this many, and goes class by class above it.
_SPLIT_THRESHOLD = 10_000


def suppress(corners: Float32, scores: Float32, iou_threshold: float, offset: int = 0) -> Int64:
    """Greedy suppression regardless of class.

    Args:
        corners: (N, 4) float32, left, top, right, bottom.
        scores: (N,) float32; of equal ones the first comes first.
        iou_threshold: a box goes when its intersection over union with a better one is greater.
        offset: 1 where right and bottom name the last pixel of a box, which makes it one wider and higher.

    Returns:
        (K,) positions of the boxes that stay, by falling score.
    """
    order = np.argsort(-scores, kind="stable")
    left, top, right, bottom = np.ascontiguousarray(corners[order].T)
    extra = np.float32(offset)
    areas = (right - left + extra) * (bottom - top + extra)
    alive = np.ones(len(order), np.bool_)
    limit = np.float32(iou_threshold)
    for rank in range(len(order)):
        if not alive[rank]:
            continue
        rest = slice(rank + 1, None)
        width = np.minimum(right[rank], right[rest]) - np.maximum(left[rank], left[rest]) + extra
        height = np.minimum(bottom[rank], bottom[rest]) - np.maximum(top[rank], top[rest]) + extra
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        # Two boxes without area have no union: they overlap nothing.
        union = areas[rank] + areas[rest] - shared
        alive[rest] &= ~(shared > limit * union)
    return order[alive]


def suppress_by_class(corners: Float32, scores: Float32, labels: Int64, iou_threshold: float, offset: int = 0) -> Int64:
    """Greedy suppression among boxes of one class, as mmcv's ``batched_nms`` does it in float32.

    It shifts the boxes of each class to a place of their own. The shift costs digits, and the sums are made as mmcv
    makes them, so that a box at the threshold falls to the same side.

    Args:
        corners: (N, 4) float32.
        scores: (N,) float32.
        labels: (N,) int64.
        iou_threshold, offset: see `suppress`.

    Returns:
        (K,) positions of the boxes that stay, by falling score.
    """
    if not len(corners):
        return np.zeros(0, np.int64)
    shift = labels.astype(np.float32) * (corners.max() + np.float32(1))
    moved = corners + shift[:, None]
    if len(corners) < _SPLIT_THRESHOLD:
        return suppress(moved, scores, iou_threshold, offset)
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    kept = np.concatenate([rows[suppress(moved[rows], scores[rows], iou_threshold, offset)] for rows in members])
    return kept[np.argsort(-scores[kept], kind="stable")]


def to_whole_pixels(corners: Float32) -> Float32:
    """Corners (N, 4) with left, top, width and height truncated to whole pixels, as Autoware keeps them."""
    corner = np.trunc(corners[:, :2])
    return np.concatenate([corner, corner + np.trunc(corners[:, 2:] - corners[:, :2])], axis=1)
