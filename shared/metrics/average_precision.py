"""Average precision and errors of hits from the curve of precision over recall, sampled at 101 recalls.

Definitions: nuscenes-devkit 1.2, ``eval/detection/algo.py``, which the T4 metric and the verifier's share.
"""

from __future__ import annotations

import numpy as np

from shared.arrays import Bool, Float64

#: Recalls 0, 0.01 ... 1 at which curves are sampled.
RECALLS = np.linspace(0.0, 1.0, 101)
#: Recalls and precisions up to here don't count: noise dominates there.
LEAST = 0.1
_FIRST = round(100 * LEAST) + 1


def sampled_curve(
    hits: Bool, scores: Float64, num_truths: int, credits: Float64 | None = None
) -> tuple[Float64, Float64]:
    """Precision and score at the recalls of ``RECALLS``, by straight lines between the points of the curve.

    No monotone envelope is taken. Where recall repeats (after false positives) ``np.interp`` uses the last of the
    equal points at that recall, which is part of the definition.

    Args:
        hits: (K,) whether each prediction is a true positive, by descending score; at least one is.
        scores: (K,) their scores.
        num_truths: ground truths, > 0.
        credits: (K,) in [0, 1], what each prediction counts in precision; None: a hit counts 1, a miss 0. Recall counts
            hits in full: with credits in it, a hair's breadth of heading would lose the last recall.

    Returns:
        (101,) precision and (101,) score; 0 beyond the recall that is reached.
    """
    true_positives = np.cumsum(hits).astype(np.float64)
    counted = true_positives if credits is None else np.cumsum(credits)
    precision = counted / np.arange(1, len(hits) + 1)
    recall = true_positives / num_truths
    return np.interp(RECALLS, recall, precision, right=0), np.interp(RECALLS, recall, scores, right=0)


def average_precision(precision: Float64, least: float = LEAST) -> float:
    """AP of a sampled curve (101,): mean of what exceeds ``least`` beyond that recall, scaled to [0, 1].

    Args:
        precision: (101,) at `RECALLS`.
        least: recalls and precisions up to here don't count; 0: all do, recall 0 included.
    """
    first = round(100 * least) + 1 if least else 0
    return float(np.mean(np.maximum(precision[first:] - least, 0.0))) / (1.0 - least)


def yaw_error(first: Float64, second: Float64, period: float | Float64 = 2 * np.pi) -> Float64:
    """(K,) unsigned angle [rad] between two headings, in [0, period / 2]."""
    return np.asarray(np.abs((first - second + period / 2) % period - period / 2))


def mean_error(values: Float64, scores: Float64, confidence: Float64) -> float:
    """Mean error over the recalls from 0.11 to the highest that is reached.

    The running mean of the errors, by descending score, is read off at the score of each recall. A class that never
    reaches recall 0.11 scores 1.

    Args:
        values: (K,) errors of the matches by descending score, NaN where unknown.
        scores: (K,) their scores.
        confidence: (101,) score at each recall, from ``sampled_curve``; zeros beyond the recall reached.
    """
    reached = np.flatnonzero(confidence)
    last = int(reached[-1]) if len(reached) else 0
    if last < _FIRST:
        return 1.0
    sampled = np.interp(confidence[::-1], scores[::-1], running_mean(values)[::-1])[::-1]
    return float(np.mean(sampled[_FIRST : last + 1]))


def running_mean(values: Float64) -> Float64:
    """(K,) mean of the values so far, without NaN; ones when all are NaN, 0 before the first that is known."""
    known = ~np.isnan(values)
    if not known.any():
        return np.ones(len(values))
    counts = np.cumsum(known)
    mean = np.zeros(len(values))
    np.divide(np.nancumsum(values), counts, out=mean, where=counts != 0)
    return mean
