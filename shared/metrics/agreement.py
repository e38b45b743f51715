"""How well boxes agree with other boxes, in a number or two: AP over classes, with hits that may count in part."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from shared.arrays import Bool, Float64, Int64
from shared.metrics.average_precision import average_precision, sampled_curve


def mean_average_precisions(
    scores: npt.NDArray[np.floating],
    labels: npt.NDArray[np.signedinteger],
    order: Int64,
    hits: Bool,
    num_truths: Mapping[int, int],
    credits: Mapping[str, Callable[[int], Float64]],
    least: float,
) -> dict[str, float]:
    """AP of matched results, mean over thresholds and over the classes that the truth has.

    Args:
        scores, labels: (N,) of the results.
        order: (N,) rows of the results by descending score.
        hits: (T, N) per threshold, whether each result takes a truth.
        num_truths: how much is true, by label.
        credits: by name of the metric, at the T-th threshold (N,) in [0, 1], what each hit counts in precision.
        least: recalls and precisions up to here don't count.

    Returns:
        By name of the metric, in [0, 1]; empty without ground truth.
    """
    values: dict[str, dict[tuple[int, int], float]] = {name: {} for name in credits}
    by_score = labels[order]
    for level, taken in enumerate(hits):
        for name, credit in credits.items():
            counts = credit(level)
            for label, count in num_truths.items():
                rows = order[by_score == label]
                values[name][label, level] = _ap(taken[rows], scores[rows], count, counts[rows], least)
    # A mean depends on the order of its numbers in the last digit: label by label.
    return {name: float(np.mean([found[at] for at in sorted(found)])) for name, found in values.items() if found}


def _ap(hits: Bool, scores: npt.NDArray[np.floating], num_truths: int, credits: Float64, least: float) -> float:
    if not hits.any():
        return 0.0
    precision, _ = sampled_curve(hits, scores.astype(np.float64), num_truths, credits)
    return average_precision(precision, least)
