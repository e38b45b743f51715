"""How well boxes agree with other boxes, in a number or two: AP over classes, with hits that may count in part."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from shared.arrays import Bool, Float64, Int64
from shared.metrics.average_precision import average_precision, sampled_curve


def mean_average_precisions(
    scores: npt.NDArray[np.floating],
    labels: Int64,
    order: Int64,
    matched: Int64,
    truth_labels: Int64,
    credits: Mapping[str, Float64],
    least: float,
) -> dict[str, float]:
    """AP of matched results, mean over thresholds and over the classes that the truth has.

    Args:
        scores, labels: (N,) of the results.
        order: (N,) rows of the results by descending score.
        matched: (T, N) per threshold, the truth that each result takes, -1 for none.
        truth_labels: (M,) labels of what is true.
        credits: by name of the metric, (T, N) in [0, 1], what each hit counts in precision.
        least: recalls and precisions up to here don't count.

    Returns:
        By name of the metric, in [0, 1]; empty without ground truth.
    """
    values: dict[str, list[float]] = {name: [] for name in credits}
    for label in np.unique(truth_labels):
        rows = order[labels[order] == label]
        num_truths = int((truth_labels == label).sum())
        for level, partners in enumerate(matched):
            hits = partners[rows] >= 0
            for name, credit in credits.items():
                values[name].append(_ap(hits, scores[rows], num_truths, credit[level, rows], least))
    return {name: float(np.mean(parts)) for name, parts in values.items() if parts}


def _ap(hits: Bool, scores: npt.NDArray[np.floating], num_truths: int, credits: Float64, least: float) -> float:
    if not hits.any():
        return 0.0
    precision, _ = sampled_curve(hits, scores.astype(np.float64), num_truths, credits)
    return average_precision(precision, least)
