"""YOLOX's output rows to boxes in pixels of the network's input.

A row is x, y, width, height, objectness and a score a class; rows run over strides, then lines, then columns. Raw rows
hold x and y as offsets from the cell's corner in strides, and logarithms of width and height in strides; objectness and
scores are probabilities in both forms. Source: Megvii's YOLOX (Ge et al., 2021), as mmdet's ``YOLOXHead`` decodes it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.models.yolox.parameters import BOX_COLUMNS
from shared.arrays import Float32, Int64
from shared.tasks.detection2d import Boxes2D


def cells(height: int, width: int, strides: Sequence[int]) -> Float32:
    """Corner and stride of the cell of each row: (N, 3) float32 x, y, stride [px]."""
    levels = []
    for stride in strides:
        y, x = np.mgrid[0 : height // stride, 0 : width // stride]
        levels.append(np.stack([x.ravel() * stride, y.ravel() * stride, np.full(x.size, stride)], axis=1))
    return np.concatenate(levels).astype(np.float32)


def best_class(rows: Float32, score_threshold: float, *, inclusive: bool) -> tuple[Int64, Float32, Int64]:
    """The rows whose best class scores high enough.

    Of a row only the best class can become a box: further classes of the same row, which Autoware proposes too, are the
    same box and fall to class-agnostic suppression.

    Args:
        rows: (N, 5 + C) float32.
        score_threshold: on objectness times class score.
        inclusive: whether a score equal to the threshold passes (mmdet) or not (Megvii, Autoware).

    Returns:
        Positions (K,), scores (K,) and labels (K,).
    """
    classes = rows[:, BOX_COLUMNS:]
    labels = classes.argmax(axis=1)
    scores = classes[np.arange(len(rows)), labels] * rows[:, BOX_COLUMNS - 1]
    limit = np.float32(score_threshold)
    above = np.flatnonzero(scores >= limit if inclusive else scores > limit)
    return above, scores[above], labels[above]


def corners_of_raw(rows: Float32, own_cells: Float32) -> Float32:
    """Corners of raw rows.

    Args:
        rows: (K, >= 4) float32.
        own_cells: (K, 3) their cells, see `cells`.

    Returns:
        (K, 4) float32.
    """
    centers = rows[:, :2] * own_cells[:, 2:] + own_cells[:, :2]
    # In double, rounded once: processors differ in the last bit of an exponential in float32.
    with np.errstate(over="ignore"):
        exponentials = np.exp(rows[:, 2:4].astype(np.float64)).astype(np.float32)
        return _corners(centers, exponentials * own_cells[:, 2:])


def corners_of_decoded(rows: Float32) -> Float32:
    """Corners of rows that hold center, width and height in pixels, (K, >= 4) to (K, 4)."""
    return _corners(rows[:, :2], rows[:, 2:4])


def _corners(centers: Float32, sizes: Float32) -> Float32:
    half = sizes / np.float32(2)
    return np.concatenate([centers - half, centers + half], axis=1)


def decode(rows: Float32, row_cells: Float32 | None, score_threshold: float, *, inclusive: bool) -> Boxes2D:
    """Boxes of the rows that score high enough, in pixels of the network's input, in the order of the rows.

    Args:
        rows: (N, 5 + C) float32.
        row_cells: (N, 3) of raw rows; None: the rows are decoded already.
        score_threshold, inclusive: see `best_class`.
    """
    above, scores, labels = best_class(rows, score_threshold, inclusive=inclusive)
    kept = rows[above]
    corners = corners_of_decoded(kept) if row_cells is None else corners_of_raw(kept, row_cells[above])
    return Boxes2D(corners, labels, scores)
