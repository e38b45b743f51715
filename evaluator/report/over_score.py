"""Charts: F1, precision and recall of each class over the least score that counts, which one sets on a vehicle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluator.report.blocks import Chart, Charts
from evaluator.report.svg import Line, line_chart, linear_axis, mark
from shared.arrays import Bool, Float64

# Scores at which a curve is drawn.
_STEPS = 101
#: Of data sets with many classes, those with the most labeled boxes.
MOST_CLASSES = 12


@dataclass(frozen=True)
class Detections:
    """Everything that a run found of a class.

    Attributes:
        name: of the class.
        scores: (K,) of its boxes.
        right: (K,) whether each is a hit; surer boxes chose first, so leaving out those below a score changes no other.
        wrong: (K,) whether each is a false alarm; one that hit something ignored is neither.
        labeled: how many there were to find.
        best: the score of the best F1; None where none is known.
    """

    name: str
    scores: Float64
    right: Bool
    wrong: Bool
    labeled: int
    best: float | None


def charts(classes: Sequence[Detections], rule: str) -> Charts:
    """One chart a class that was labeled, those with the most boxes first; ``rule`` says what counts as a hit."""
    shown = sorted((one for one in classes if one.labeled), key=lambda one: -one.labeled)[:MOST_CLASSES]
    legend = [("s0", "F1"), ("s1", "precision"), ("s2", "recall")]
    title = f"Over the score threshold: {rule}; the best F1 is marked"
    return Charts([_chart(one) for one in shown], legend, title)


def _chart(one: Detections) -> Chart:
    levels = np.linspace(0, 1, _STEPS)
    f1, precision, recall = curves(one, levels)
    lines = [
        Line([(x, y) for x, y in zip(levels.tolist(), values.tolist(), strict=True) if not np.isnan(y)], style)
        for values, style in ((recall, "s2"), (precision, "s1"), (f1, "s0"))
    ]
    x, y = linear_axis("score from", 0, 1), linear_axis("", 0, 1)
    if one.best is None:
        return Chart(
            one.name, line_chart(f"F1, precision and recall of {one.name} by score", lines, x, y), "nothing found"
        )
    f1_there, precision_there, recall_there = (float(values[0]) for values in curves(one, np.array([one.best])))
    note = f"from {one.best:.2f}: F1 {f1_there:.3f}, precision {precision_there:.3f}, recall {recall_there:.3f}"
    svg = line_chart(f"F1, precision and recall of {one.name} by score; {note}", lines, x, y)
    return Chart(one.name, mark(svg, x, one.best, f"{one.best:.2f}", below=True), note)


def curves(one: Detections, levels: Float64) -> tuple[Float64, Float64, Float64]:
    """F1, precision and recall (L,) of the boxes whose score is at least each level; NaN where there are none."""
    order = np.argsort(one.scores)
    # Boxes at and above a level: all, less those below.
    below = np.searchsorted(one.scores[order], levels, side="left")
    right, wrong = (np.append(np.cumsum(values[order][::-1])[::-1], 0)[below] for values in (one.right, one.wrong))
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = right / (right + wrong)
    recall = right / max(1, one.labeled)
    f1 = 2 * right / np.maximum(1, right + wrong + one.labeled)
    return f1, precision, recall
