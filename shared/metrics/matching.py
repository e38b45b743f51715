"""Greedy matching of predictions with ground truth, for every frame, class and threshold at once.

The rule (nuScenes; perception_eval's is the same with its default label policy): within a frame and class, predictions
choose by descending score; each takes the nearest ground truth that is still free, if that is closer than the
threshold, and is a false positive otherwise. The nearest free one is tested, never a second choice, so pairs that are
further apart than the largest threshold can be dropped before: that leaves a few pairs a prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shared.arrays import Bool
from shared.metrics.box_table import BoxTable, Int

# Pairs compared at a time: bounds the memory at about 100 MB for any data set.
_PAIRS_PER_CHUNK = 1 << 20
_MOST_FAMILIES = 1 << 20


@dataclass(frozen=True)
class Pairs:
    """Candidate pairs of one prediction and one ground truth of the same frame. Rows are parallel.

    Attributes:
        predictions: (P,) int64, row of the prediction.
        truths: (P,) int64, row of the ground truth.
        costs: (P,) float64, how far apart they are; the unit is the matching rule's (meters for distances).
    """

    predictions: Int
    truths: Int
    costs: npt.NDArray[np.float64]

    def select(self, index: Bool | Int) -> Pairs:
        """The pairs at ``index``."""
        return Pairs(self.predictions[index], self.truths[index], self.costs[index])

    def in_order(self) -> Pairs:
        """Ordered by prediction, then cost, then row of the ground truth: that in which equally near ones are taken."""
        return self.select(np.lexsort((self.truths, self.costs, self.predictions)))


def center_distances(predictions: BoxTable, truths: BoxTable, rows: Int, columns: Int) -> npt.NDArray[np.float64]:
    """(P,) distance in the ground plane [m] between predictions ``rows`` (P,) and ground truths ``columns`` (P,)."""
    offset = predictions.centers[rows, :2].astype(np.float64) - truths.centers[columns, :2]
    return np.sqrt(offset[:, 0] ** 2 + offset[:, 1] ** 2)


def groups_of(table: BoxTable, families: Int | None = None) -> Int:
    """(N,) group of each box: boxes match within their frame and family.

    Args:
        table: the boxes.
        families: (C,) family of each class; None: each class is its own.
    """
    return group_ids(table.frames, table.labels if families is None else families[table.labels])


def group_ids(frames: Int, families: Int) -> Int:
    """(N,) one number for each pair of a frame (N,) and a family (N,), which is -1 for no class and below 2**20."""
    return np.asarray(frames * _MOST_FAMILIES + families)


def pairs_within(
    predictions: BoxTable, truths: BoxTable, limit: float, *, between_edges: bool = False, families: Int | None = None
) -> Pairs:
    """Every pair of the same frame and family whose centers are closer than ``limit`` meters in the ground plane.

    Args:
        predictions, truths: the boxes.
        limit: meters.
        between_edges: allow ``limit`` between the circles around the footprints instead of between the centers.
        families: (C,) family of each class; only boxes of one family can match. None: each class is its own.

    Returns:
        The pairs in order, center distances as costs.
    """
    groups, truth_groups = groups_of(predictions, families), groups_of(truths, families)
    truth_order = np.argsort(truth_groups, kind="stable")
    truth_groups = truth_groups[truth_order]
    first = np.searchsorted(truth_groups, groups, side="left")
    counts = np.searchsorted(truth_groups, groups, side="right") - first

    predictions_radius, truths_radius = _footprint_radius(predictions), _footprint_radius(truths)
    found: list[Pairs] = []
    ends = np.cumsum(counts)
    start = 0
    while start < len(groups):
        budget = (ends[start - 1] if start else 0) + _PAIRS_PER_CHUNK
        stop = max(start + 1, int(np.searchsorted(ends, budget, side="right")))
        rows = np.repeat(np.arange(start, stop), counts[start:stop])
        before = np.repeat(np.cumsum(counts[start:stop]) - counts[start:stop], counts[start:stop])
        columns = truth_order[first[rows] + np.arange(len(rows)) - before]
        costs = center_distances(predictions, truths, rows, columns)
        reach = limit + predictions_radius[rows] + truths_radius[columns] if between_edges else limit
        near = costs < reach
        found.append(Pairs(rows[near], columns[near], costs[near]))
        start = stop

    pairs = Pairs(
        np.concatenate([np.zeros(0, np.int64), *(part.predictions for part in found)]),
        np.concatenate([np.zeros(0, np.int64), *(part.truths for part in found)]),
        np.concatenate([np.zeros(0), *(part.costs for part in found)]),
    )
    return pairs.in_order()


def _footprint_radius(table: BoxTable) -> npt.NDArray[np.float64]:
    """(N,) radius [m] of the circle around each footprint."""
    return np.hypot(table.sizes[:, 0].astype(np.float64), table.sizes[:, 1]) / 2


def descending_scores(scores: npt.NDArray[np.floating]) -> Int:
    """(N,) rows by descending score; of equal scores the later row comes first, as in nuscenes-devkit."""
    return np.argsort(scores, kind="stable")[::-1]


def match_greedily(pairs: Pairs, groups: Int, num_truths: int, order: Int, thresholds: npt.NDArray[np.float64]) -> Int:
    """Match at every threshold.

    Args:
        pairs: candidate pairs, ordered by prediction, cost, ground truth; only these can match.
        groups: (N,) group of each prediction that the pairs' rows index (`groups_of`): only predictions of one group
            are after the same ground truths.
        num_truths: number of ground truths that the pairs' rows index.
        order: (N,) rows of the predictions in the order in which they choose.
        thresholds: (T,) a pair matches when its cost is strictly below.

    Returns:
        (T, N) int64, the ground truth that each prediction takes, -1 for none.
    """
    matched = np.full((len(thresholds), len(groups)), -1, np.int64)
    if not len(pairs.predictions):
        return matched
    rounds = _rounds(pairs.predictions, groups, order)
    by_round = np.argsort(rounds, kind="stable")
    rows, columns, costs = pairs.predictions[by_round], pairs.truths[by_round], pairs.costs[by_round]
    starts = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]])
    choosers = rows[starts]
    segment_ends = np.searchsorted(rounds[by_round][starts], np.arange(rounds.max() + 1), side="right")

    free = np.ones((len(thresholds), num_truths), np.bool_)
    close = costs < thresholds[:, None]
    begin = 0
    for end in segment_ends:
        low, high = starts[begin], starts[end] if end < len(starts) else len(rows)
        available = free[:, columns[low:high]] & close[:, low:high]
        # Pairs of a prediction lie nearest first, so its choice is the first available one.
        positions = np.where(available, np.arange(low, high), len(rows))
        choice = np.minimum.reduceat(positions, starts[begin:end] - low, axis=1)
        level, chooser = np.nonzero(choice < len(rows))
        taken = columns[choice[level, chooser]]
        matched[level, choosers[begin:end][chooser]] = taken
        free[level, taken] = False
        begin = end
    return matched


def _rounds(rows: Int, groups: Int, order: Int) -> Int:
    """(P,) round in which each pair's prediction chooses: its rank among the choosers of its group.

    Choosers of one round belong to different groups and can't be after the same ground truth, so a round is one array
    operation.
    """
    rank = np.empty(len(groups), np.int64)
    rank[order] = np.arange(len(order))
    choosers = np.unique(rows)
    by_group = np.lexsort((rank[choosers], groups[choosers]))
    new_group = np.r_[True, np.diff(groups[choosers][by_group]) != 0]
    positions = np.arange(len(choosers))
    round_of = np.empty(len(groups), np.int64)
    round_of[choosers[by_group]] = positions - np.maximum.accumulate(np.where(new_group, positions, 0))
    return round_of[rows]
