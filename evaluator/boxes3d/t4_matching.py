"""Which boxes find which, for TIER IV's metric: pairs, their costs under several rules, and greedy matches.

Definitions: ``perception_eval`` 1.3 (autoware_perception_evaluation), as AWML's ``T4MetricV2`` uses it. Ranges are open
at both ends (``low < distance < high``). What is made of the matches: `evaluator.boxes3d.t4`.

Three mistakes of the original are corrected here; `Compatibility` repeats them to compare numbers:

- APH loses the sign of yaw, since a quaternion's angle is never negative: +0.1 and -0.1 rad count as equal.
- AWML hands over (l, w, h) where (w, l, h) is expected, so footprints are turned by a quarter.
- AWML hands over the bottom of a box where the center is expected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from evaluator.boxes3d.overlap import iou_3d, iou_bev, plane_distances
from shared.arrays import Bool, Float64, Int32
from shared.metrics.average_precision import yaw_error
from shared.metrics.box_table import BoxTable, Int
from shared.metrics.matching import Pairs, center_distances, descending_scores, groups_of, match_greedily, pairs_within

PairCost = Callable[[BoxTable, BoxTable, Int, Int], Float64]

# perception_eval rounds the weight of a hit in APH so that equal headings weigh exactly 1.
_WEIGHT_DECIMALS = 10


def center_distances_3d(predictions: BoxTable, truths: BoxTable, rows: Int, columns: Int) -> Float64:
    """(K,) distance [m] of the centers, height included."""
    offset = predictions.centers[rows].astype(np.float64) - truths.centers[columns]
    return np.asarray(np.sqrt((offset**2).sum(axis=1)))


def _negative(overlap: PairCost) -> PairCost:
    """A cost, less is better, from an overlap, more is better."""
    return lambda predictions, truths, rows, columns: -overlap(predictions, truths, rows, columns)


@dataclass(frozen=True)
class Rule:
    """A matching rule.

    Attributes:
        cost: how far apart the boxes of a pair are; less is better.
        thresholds: a pair matches when its cost is strictly below, or its overlap strictly above.
        is_overlap: whether thresholds are least overlaps, and costs their negatives.
    """

    cost: PairCost
    thresholds: tuple[float, ...]
    is_overlap: bool = False

    @property
    def limits(self) -> Float64:
        """(T,) costs below which a pair matches."""
        return np.array([-threshold if self.is_overlap else threshold for threshold in self.thresholds])


_IOU_BEV, _IOU_3D = _negative(iou_bev), _negative(iou_3d)

#: Matching rules and thresholds: those of AWML's evaluators, center distance in 3D, and overlaps at 0.5 and 0.3, which
#: are not averaged.
RULES: Mapping[str, Rule] = {
    "center_distance_bev": Rule(center_distances, (0.5, 1.0, 2.0, 4.0)),
    "center_distance": Rule(center_distances_3d, (0.5, 1.0, 2.0, 4.0)),
    "plane_distance": Rule(plane_distances, (2.0, 4.0)),
    "iou_bev": Rule(_IOU_BEV, (0.5,), is_overlap=True),
    "iou_bev_0.3": Rule(_IOU_BEV, (0.3,), is_overlap=True),
    "iou_3d": Rule(_IOU_3D, (0.5,), is_overlap=True),
    "iou_3d_0.3": Rule(_IOU_3D, (0.3,), is_overlap=True),
}


@dataclass(frozen=True)
class Compatibility:
    """Mistakes of the original to repeat, for a comparison of numbers with AWML's.

    Attributes:
        unsigned_yaw: APH takes the angle of the rotation, without its sign.
        swapped_sizes: footprints have length and width exchanged.
        bottom_centers: z is that of the bottom face.
    """

    unsigned_yaw: bool = False
    swapped_sizes: bool = False
    bottom_centers: bool = False


RIGHT = Compatibility()
AS_AWML = Compatibility(unsigned_yaw=True, swapped_sizes=True, bottom_centers=True)


@dataclass(frozen=True)
class Candidates:
    """Predictions, ground truth, and pairs with their costs under every rule: computed once, used for every range.

    Attributes:
        predictions, truths: the boxes that passed the filters.
        pairs: by name of the rule.
        rules: the rules.
        order: (N,) rows of the predictions in the order in which they choose.
        groups: (N,) predictions of one group are after the same ground truths (`groups_of`).
        heading_weights: weight of a hit in APH, for rows of predictions (K,) and ground truths (K,).
    """

    predictions: BoxTable
    truths: BoxTable
    pairs: dict[str, Pairs]
    rules: Mapping[str, Rule]
    order: Int
    groups: Int
    heading_weights: Callable[[Int, Int], Float64]


def find_candidates(
    predictions: BoxTable,
    truths: BoxTable,
    *,
    rules: Mapping[str, Rule] = RULES,
    compatibility: Compatibility = RIGHT,
    any_label: bool = False,
    min_points: Int | None = None,
) -> Candidates:
    """Filter the boxes and compute the costs of all pairs that may match.

    Ground truth without lidar points is left out, as AWML's data set drops it.

    Args:
        predictions, truths: the boxes.
        rules: matching rules by name.
        compatibility: mistakes to repeat.
        any_label: boxes of different classes may match, too (perception_eval's ``ALLOW_ANY``).
        min_points: (C,) per class, fewest lidar points of ground truth that is to be found; None: 1.
    """
    truths = truths.select(truths.num_points >= (1 if min_points is None else min_points[truths.labels]))
    families = None
    if any_label:
        families = np.zeros(max(table.labels.max(initial=0) for table in (predictions, truths)) + 1, np.int64)
    # A pair with plane distance d has a pair of corners within d, and corners lie on the circle around the footprint;
    # boxes that overlap have overlapping circles.
    limit = max([threshold for rule in rules.values() if not rule.is_overlap for threshold in rule.thresholds] + [0.0])
    near = pairs_within(predictions, truths, limit, between_edges=True, families=families)
    shapes = _with_mistakes(predictions, compatibility), _with_mistakes(truths, compatibility)
    pairs = {}
    costs_of = {cost: _in_chunks(cost, *shapes, near) for cost in {rule.cost for rule in rules.values()}}
    for name, rule in rules.items():
        costs = costs_of[rule.cost]
        pairs[name] = replace(near, costs=costs).select(costs < rule.limits.max()).in_order()
    return Candidates(
        predictions,
        truths,
        pairs,
        rules,
        # Python's stable sort, descending: of equal scores the earlier comes first.
        np.argsort(-predictions.scores.astype(np.float64), kind="stable"),
        groups_of(predictions, families),
        lambda rows, columns: heading_weights(predictions.yaws[rows], truths.yaws[columns], compatibility.unsigned_yaw),
    )


def _with_mistakes(table: BoxTable, compatibility: Compatibility) -> BoxTable:
    """The boxes with those mistakes of the original that are asked for."""
    if compatibility.bottom_centers:
        bottom = table.centers - np.array([0.0, 0.0, 0.5]) * table.sizes[:, 2:]
        table = replace(table, centers=bottom)
    if compatibility.swapped_sizes:
        table = replace(table, sizes=table.sizes[:, [1, 0, 2]])
    return table


# Pairs whose costs are computed at a time: overlaps need some kilobytes each.
_PAIRS_PER_CHUNK = 1 << 14


def _in_chunks(cost: PairCost, predictions: BoxTable, truths: BoxTable, pairs: Pairs) -> Float64:
    """(P,) cost of every pair."""
    parts = [
        cost(
            predictions,
            truths,
            pairs.predictions[start : start + _PAIRS_PER_CHUNK],
            pairs.truths[start : start + _PAIRS_PER_CHUNK],
        )
        for start in range(0, len(pairs.predictions), _PAIRS_PER_CHUNK)
    ]
    return np.concatenate([np.zeros(0), *parts])


def heading_weights(predicted: npt.ArrayLike, actual: npt.ArrayLike, unsigned: bool = False) -> Float64:
    """(K,) weight of a hit in APH: 1 for the same heading, 0 for the opposite one.

    Args:
        predicted, actual: (K,) yaws [rad].
        unsigned: take angles as pyquaternion's ``radians`` gives them, which is |yaw| for yaws in [-pi, pi].
    """
    first, second = np.asarray(predicted, np.float64), np.asarray(actual, np.float64)
    if unsigned:
        first, second = _rotation_angle(first), _rotation_angle(second)
    return np.asarray(np.round(np.maximum(0.0, 1.0 - yaw_error(first, second) / np.pi), _WEIGHT_DECIMALS))


def _rotation_angle(yaw: Float64) -> Float64:
    return np.asarray(2 * np.arctan2(np.abs(np.sin(yaw / 2)), np.cos(yaw / 2)))


def in_range(table: BoxTable, low: float, high: float) -> Bool:
    """(N,) whether the center is at ``low < distance < high`` meters from the ego, in the ground plane."""
    distances = table.distances_to_ego()
    return (low < distances) & (distances < high)


@dataclass(frozen=True)
class Hits:
    """The predictions that found something, under one rule at one threshold.

    Attributes:
        rows: (H,) int32, their rows among those that take part.
        weights: (H,) what each counts in APH.
        labels: (H,) int16, classes of the ground truths, for which the predictions count.
    """

    rows: Int32
    weights: Float64
    labels: npt.NDArray[np.int16]


@dataclass(frozen=True)
class Matches:
    """Which of the K predictions that take part found something: what the score needs and no more, as data sets have
    many boxes.

    Attributes:
        rules: the rules.
        scores: (K,) of the predictions.
        labels: (K,) int16, their own classes, for which they count where they found nothing.
        frames: (K,) int32, their frames.
        by_score: (K,) int32, rows by descending score.
        truth_labels, truth_frames: (M,) int16 and int32, of the ground truths that take part.
        hits: per rule, at each of its thresholds.
    """

    rules: Mapping[str, Rule]
    scores: npt.NDArray[np.floating]
    labels: npt.NDArray[np.int16]
    frames: Int32
    by_score: Int32
    truth_labels: npt.NDArray[np.int16]
    truth_frames: Int32
    hits: dict[str, list[Hits]]


def match_range(candidates: Candidates, low: float, high: float) -> Matches:
    """Match the boxes at ``low < distance < high`` meters under every rule. Both sides are filtered, then matched."""
    return match_subset(candidates, in_range(candidates.predictions, low, high), in_range(candidates.truths, low, high))


def match_subset(candidates: Candidates, keep_predictions: Bool, keep_truths: Bool) -> Matches:
    """Match some of the boxes under every rule.

    Args:
        candidates: all boxes and their near pairs.
        keep_predictions: (N,) predictions that take part.
        keep_truths: (M,) ground truths that take part.
    """
    order = candidates.order[keep_predictions[candidates.order]]
    predictions, truths = candidates.predictions, candidates.truths
    kept_row = np.cumsum(keep_predictions, dtype=np.int32) - np.int32(1)
    hits: dict[str, list[Hits]] = {}
    for name, rule in candidates.rules.items():
        pairs = candidates.pairs[name]
        inside = keep_predictions[pairs.predictions] & keep_truths[pairs.truths]
        matched = match_greedily(
            pairs.select(inside),
            candidates.groups,
            len(candidates.truths),
            order,
            rule.limits,
        )
        hits[name] = []
        for partners in matched:
            rows = np.flatnonzero(partners >= 0)
            weights = candidates.heading_weights(rows, partners[rows])
            hits[name].append(Hits(kept_row[rows], weights, truths.labels[partners[rows]].astype(np.int16)))
    scores = predictions.scores[keep_predictions]
    return Matches(
        candidates.rules,
        scores,
        predictions.labels[keep_predictions].astype(np.int16),
        predictions.frames[keep_predictions].astype(np.int32),
        descending_scores(scores).astype(np.int32),
        truths.labels[keep_truths].astype(np.int16),
        truths.frames[keep_truths].astype(np.int32),
        hits,
    )


def join(parts: Sequence[Matches]) -> Matches:
    """The matches of all frames, from those of some frames each, in order: frames are matched each for itself."""
    starts = np.cumsum([0, *(len(part.scores) for part in parts[:-1])]).astype(np.int32)
    scores = np.concatenate([part.scores for part in parts])

    def joined(rule: str, level: int) -> Hits:
        of_parts = [part.hits[rule][level] for part in parts]
        return Hits(
            np.concatenate([start + hits.rows for start, hits in zip(starts, of_parts, strict=True)]),
            np.concatenate([hits.weights for hits in of_parts]),
            np.concatenate([hits.labels for hits in of_parts]),
        )

    return Matches(
        parts[0].rules,
        scores,
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.frames for part in parts]),
        descending_scores(scores).astype(np.int32),
        np.concatenate([part.truth_labels for part in parts]),
        np.concatenate([part.truth_frames for part in parts]),
        {name: [joined(name, level) for level in range(len(rule.thresholds))] for name, rule in parts[0].rules.items()},
    )
