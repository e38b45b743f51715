"""The metric that TIER IV reports for T4 data: AP, APH, greatest F1 on several matching rules.

Definitions: ``perception_eval`` 1.3 (autoware_perception_evaluation), as AWML's ``T4MetricV2`` uses it. Like the
nuScenes metric up to the matches (`evaluator.boxes3d.t4_matching`); then the precision curve gets its monotone
envelope, and classes without ground truth and predictions are left out of means.

Like the original's, label policy and least number of points can be chosen (`T4Metric`), and a frame set has a count of
successes and failures (`PassFail`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluator.boxes3d.t4_matching import Candidates, Matches, match_range
from shared.arrays import Float64, Int32
from shared.metrics.average_precision import RECALLS, average_precision
from shared.metrics.box_table import Int

#: The rule and threshold [m] by which a box passes or fails.
PASS_RULE, PASS_THRESHOLD = "plane_distance", 2.0
#: The rule of the headline mAP.
HEADLINE_RULE = "center_distance_bev"


@dataclass(frozen=True)
class ThresholdScore:
    """One class at one threshold of a rule; NaN where there is nothing to compute a value from.

    Attributes:
        ap: average precision.
        aph: average precision, hits weighted by heading.
        max_f1: greatest F1 over all scores.
        optimal_confidence: the score that gives it; a detector with this threshold balances misses and false alarms.
        optimal_precision, optimal_recall: precision and recall there.
    """

    ap: float
    aph: float
    max_f1: float
    optimal_confidence: float
    optimal_precision: float
    optimal_recall: float


@dataclass(frozen=True)
class ClassScore:
    """One class under one rule.

    Attributes:
        thresholds: score per threshold.
        num_truths: ground truths of the class.
        num_predictions: its predictions.
    """

    thresholds: dict[float, ThresholdScore]
    num_truths: int
    num_predictions: int

    @property
    def ap(self) -> float:
        """Mean AP over the thresholds; NaN without ground truth and predictions."""
        return mean_of_known([score.ap for score in self.thresholds.values()])

    @property
    def aph(self) -> float:
        """Mean APH over the thresholds; NaN without ground truth and predictions."""
        return mean_of_known([score.aph for score in self.thresholds.values()])


@dataclass(frozen=True)
class RuleScore:
    """All classes under one rule."""

    classes: dict[str, ClassScore]

    @property
    def mean_ap(self) -> float:
        """mAP: mean over the classes that have ground truth or predictions."""
        return mean_of_known([score.ap for score in self.classes.values()])

    @property
    def mean_aph(self) -> float:
        """mAPH: the same of APH."""
        return mean_of_known([score.aph for score in self.classes.values()])


def mean_of_known(values: Sequence[float]) -> float:
    """Mean of the values that are not NaN; NaN when all are."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def score(
    matches: Matches, classes: Sequence[str], copies: Int | None = None, rules: Sequence[str] | None = None
) -> dict[str, RuleScore]:
    """The metric of matched boxes, by rule.

    Args:
        matches: what `match_range` gave.
        classes: the class list.
        copies: (F,) how many times each frame counts; None: once. Resampling the frames needs no new matching.
        rules: names of the rules to score; None: all.
    """
    by_score, weights = matches.by_score, None
    if copies is not None:
        by_score = np.repeat(by_score, copies[matches.frames[by_score]])
        weights = copies[matches.truth_frames]
    counts = np.bincount(matches.truth_labels, weights=weights, minlength=len(classes)).astype(np.int64)
    return {
        name: _score_rule(matches, name, classes, by_score, counts)
        for name in matches.hits
        if rules is None or name in rules
    }


def score_range(candidates: Candidates, classes: Sequence[str], low: float, high: float) -> dict[str, RuleScore]:
    """The metric of the boxes at ``low < distance < high`` meters, by rule."""
    return score(match_range(candidates, low, high), classes)


def _score_rule(matches: Matches, rule: str, classes: Sequence[str], by_score: Int32, truth_counts: Int) -> RuleScore:
    """Score all classes. ``by_score`` (K,): rows of the predictions that take part, by descending score."""
    at: list[dict[float, ThresholdScore]] = [{} for _ in classes]
    for threshold, hits in zip(matches.rules[rule].thresholds, matches.hits[rule], strict=True):
        weights, labels = np.full(len(matches.scores), -1.0), matches.labels.copy()
        weights[hits.rows], labels[hits.rows] = hits.weights, hits.labels
        counts_for = labels[by_score]
        for label in range(len(classes)):
            counted = by_score[counts_for == label]
            counted_scores = matches.scores[counted].astype(np.float64)
            at[label][threshold] = score_threshold(weights[counted], counted_scores, int(truth_counts[label]))
    own = matches.labels[by_score]
    return RuleScore(
        {
            name: ClassScore(at[label], int(truth_counts[label]), int((own == label).sum()))
            for label, name in enumerate(classes)
        }
    )


@dataclass(frozen=True)
class PassFail:
    """How many boxes passed, of all frames: perception_eval's counts by `PASS_RULE` at `PASS_THRESHOLD`.

    Attributes:
        found: ground truths that were found.
        missed: ground truths that were not.
        false: predictions that found none, whatever their score.
    """

    found: int
    missed: int
    false: int


def pass_fail(matches: Matches) -> PassFail:
    """The counts of matched boxes."""
    level = matches.rules[PASS_RULE].thresholds.index(PASS_THRESHOLD)
    found = len(matches.hits[PASS_RULE][level].rows)
    return PassFail(found, len(matches.truth_labels) - found, len(matches.scores) - found)


def score_threshold(weights: Float64, scores: Float64, num_truths: int) -> ThresholdScore:
    """AP, APH and the best F1 of one class at one threshold.

    Args:
        weights: (K,) what each hit counts in APH, -1 for a false positive; by descending score.
        scores: (K,) the scores.
        num_truths: ground truths of the class.
    """
    nan = float("nan")
    if not len(weights):
        ap = nan if num_truths == 0 else 0.0
        return ThresholdScore(ap, ap, nan, nan, nan, nan)
    hits = weights >= 0
    false_positives = np.cumsum(~hits).astype(np.float64)
    precision, recall = _curve(hits.astype(np.float64), false_positives, num_truths)
    ap = _envelope_ap(precision, recall)
    aph = _envelope_ap(*_curve(np.maximum(weights, 0.0), false_positives, num_truths))
    total = precision + recall
    if not total.any():
        return ThresholdScore(ap, aph, nan, nan, nan, nan)
    f1 = np.divide(2 * precision * recall, total, out=np.full(len(total), -np.inf), where=total != 0)
    best = int(f1.argmax())
    return ThresholdScore(ap, aph, float(f1[best]), float(scores[best]), float(precision[best]), float(recall[best]))


def _curve(weights: Float64, false_positives: Float64, num_truths: int) -> tuple[Float64, Float64]:
    """(K,) precision and recall after each result; 0 recall without ground truth."""
    true_positives = np.cumsum(weights)
    total = true_positives + false_positives
    precision = np.divide(true_positives, total, out=np.zeros(len(total)), where=total != 0)
    recall = true_positives / num_truths if num_truths else np.zeros(len(total))
    return precision, recall


def _envelope_ap(precision: Float64, recall: Float64) -> float:
    """AP of a curve whose precision is replaced by the best at its recall or beyond."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return average_precision(np.interp(RECALLS, recall, envelope, right=0))
