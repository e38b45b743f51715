"""Counts of hits and errors: per frame, and as a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluator.report.blocks import Cell, Grid
from shared.arrays import Int64


def f1(hits: int, predictions: int, truths: int) -> float | None:
    """Harmonic mean of precision and recall; None where there is nothing on either side."""
    return 2 * hits / (predictions + truths) if predictions + truths else None


def confusion_table(title: str, matrix: Int64, rows: Sequence[str], columns: Sequence[str]) -> Grid:
    """Counts (R, C), truth in rows, shaded by their share of the row."""
    sums = matrix.sum(axis=1)
    cells: list[list[str | Cell]] = [
        [name, *(_count(int(value), int(sums[index])) for value in matrix[index]), str(int(sums[index]))]
        for index, name in enumerate(rows)
    ]
    return Grid(title, ["truth", *columns, "sum"], cells)


def _count(value: int, whole: int) -> Cell:
    return Cell(str(value), tone="" if value else "muted", heat=value / whole if whole else 0.0)


def detection_confusion(
    pairs: Int64,
    truths: Int64,
    predictions: Int64,
    classes: Sequence[str],
    title: str,
) -> Grid:
    """Confusion matrix of a detector: which class was found as which, what was missed, and what was a false alarm.

    Args:
        pairs: (K, 2) labels of the truth and the prediction of everything that was matched.
        truths, predictions: (M,) and (N,) labels of everything there was, and of everything that was predicted.
        classes: class list.
        title: of the table.
    """
    size = len(classes) + 1
    matrix = np.zeros((size, size), np.int64)
    np.add.at(matrix, (pairs[:, 0], pairs[:, 1]), 1)
    counts = [np.bincount(labels, minlength=len(classes)) for labels in (truths, predictions)]
    matrix[:-1, -1] = counts[0] - matrix[:-1, :-1].sum(axis=1)
    matrix[-1, :-1] = counts[1] - matrix[:-1, :-1].sum(axis=0)
    used = [label for label in range(len(classes)) if matrix[label].any() or matrix[:, label].any()]
    kept = [*used, size - 1]
    names = [classes[label] for label in used]
    return confusion_table(title, matrix[np.ix_(kept, kept)], [*names, "nothing there"], [*names, "not found"])
