"""The nuScenes detection metric: AP on center distance, errors of the true positives, NDS.

Definitions: nuscenes-devkit 1.2, ``eval/detection`` (Caesar et al., "nuScenes: A multimodal dataset for autonomous
driving", CVPR 2020, section 3.1). Results equal the devkit's on the same boxes; what it does with Python objects, box
by box, is done here on columns, for all frames at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shared.arrays import Bool, Float64, Int32
from shared.metrics.average_precision import RECALLS, average_precision, mean_error, sampled_curve, yaw_error
from shared.metrics.box_table import NO_ATTRIBUTE, BoxTable, Int, table_of
from shared.metrics.matching import Pairs, descending_scores, groups_of, match_greedily, pairs_within
from shared.tasks.detection3d import Boxes3D

#: Center distances [m] at which a prediction counts as a hit.
DISTANCES = (0.5, 1.0, 2.0, 4.0)
#: The one at which the errors of the hits are measured.
ERROR_DISTANCE = 2.0
#: How far the evaluator's headline reaches, which is as far as AWML's models do [m].
REACH = 121.0
#: mAP counts five times as much in the NDS as one error.
MAP_WEIGHT = 5.0

ERRORS = ("ATE", "ASE", "AOE", "AVE", "AAE")
#: Errors that are meaningless for a class: a cone has no heading, cones and barriers don't move.
UNDEFINED_ERRORS: Mapping[str, frozenset[str]] = {
    "traffic_cone": frozenset({"AOE", "AVE", "AAE"}),
    "barrier": frozenset({"AVE", "AAE"}),
}
#: A barrier looks the same from both sides.
_HALF_TURN_CLASSES = frozenset({"barrier"})


@dataclass(frozen=True)
class ClassScore:
    """The metric of one class.

    Attributes:
        average_precision: AP per distance of ``DISTANCES``.
        errors: mean error of the hits per name of ``ERRORS``; NaN if the error is meaningless for the class.
        vertical_error: mean distance of the hits' centers in z [m], NaN without hits. Not part of the nuScenes metric,
            which sees boxes from above and would not notice a bottom mistaken for a center.
        num_truths, num_predictions: boxes of the class that took part.
        precision: (T, 101) precision at ``RECALLS``, per distance.
    """

    average_precision: dict[float, float]
    errors: dict[str, float]
    vertical_error: float
    num_truths: int
    num_predictions: int
    precision: Float64

    @property
    def mean_average_precision(self) -> float:
        """Mean of the AP over the distances."""
        return float(np.mean(list(self.average_precision.values())))


@dataclass(frozen=True)
class NuscenesScore:
    """The metric of a whole set.

    Attributes:
        classes: score per class, in the order of the class list.
        attributes_labeled: whether the attribute of any ground truth is known; if not, AAE is 1 whatever was predicted.
    """

    classes: dict[str, ClassScore]
    attributes_labeled: bool

    @property
    def mean_average_precision(self) -> float:
        """mAP: mean over *all* classes; one without ground truth counts 0, as in nuscenes-devkit."""
        return float(np.mean([score.mean_average_precision for score in self.classes.values()]))

    @property
    def errors(self) -> dict[str, float]:
        """Mean over the classes per error, without those for which it is meaningless; NaN if that leaves none."""
        means = {}
        for name in ERRORS:
            values = [score.errors[name] for score in self.classes.values() if not np.isnan(score.errors[name])]
            means[name] = float(np.mean(values)) if values else float("nan")
        return means

    @property
    def nds(self) -> float:
        """nuScenes detection score in [0, 1]; unknown attributes count as all wrong, as in nuscenes-devkit."""
        return self._detection_score(ERRORS)

    @property
    def nds_without_aae(self) -> float:
        """The same without the attributes, which data other than nuScenes' hardly label."""
        return self._detection_score([name for name in ERRORS if name != "AAE"])

    def _detection_score(self, names: Sequence[str]) -> float:
        credit = [max(0.0, 1.0 - self.errors[name]) for name in names]
        return float((MAP_WEIGHT * self.mean_average_precision + np.sum(credit)) / (MAP_WEIGHT + len(credit)))

    @property
    def mean_ap_of_labeled(self) -> float:
        """Mean AP over the classes that have ground truth; NaN if none has."""
        values = [score.mean_average_precision for score in self.classes.values() if score.num_truths]
        return float(np.mean(values)) if values else float("nan")


@dataclass(frozen=True)
class Candidates:
    """Predictions, ground truth, and the pairs near enough to match: found once, used for every range.

    Attributes:
        predictions, truths: the boxes; ground truth without lidar points left out.
        pairs: pairs within the largest distance.
        order: (N,) rows of the predictions in the order in which they choose.
    """

    predictions: BoxTable
    truths: BoxTable
    pairs: Pairs
    order: Int


def find_candidates(predictions: BoxTable, truths: BoxTable) -> Candidates:
    """Prepare matching. Ground truth with exactly 0 points is left out, as nobody could have seen it."""
    return _candidates(predictions, truths.select(truths.num_points != 0))


def _candidates(predictions: BoxTable, truths: BoxTable) -> Candidates:
    return Candidates(
        predictions, truths, pairs_within(predictions, truths, max(DISTANCES)), descending_scores(predictions.scores)
    )


def in_range(table: BoxTable, low: float, high: float) -> Bool:
    """(N,) whether the center is at ``low <= distance < high`` meters from the ego, in the ground plane."""
    distances = table.distances_to_ego()
    return (low <= distances) & (distances < high)


@dataclass(frozen=True)
class Matches:
    """Which of the K predictions that take part found something, and how far off they are: what the score needs and no
    more, as data sets have many boxes.

    Attributes:
        scores: (K,) of the predictions.
        labels: (K,) int16, their classes.
        frames: (K,) int32, their frames.
        orders: per class, int32 rows of its predictions by descending score.
        hits: (T, K) bool, whether each takes a ground truth, per distance.
        places: (K,) int32, for a hit at ``ERROR_DISTANCE`` its place in the errors.
        errors: per name of ``ERRORS``, (H,) error of each hit at ``ERROR_DISTANCE``; NaN where unknown.
        vertical_errors: (H,) distance of each hit's centers in z [m].
        truth_labels, truth_frames: (M,) int16 and int32, of the ground truths that take part.
        attributes_labeled: whether the attribute of any of these is known.
    """

    scores: npt.NDArray[np.floating]
    labels: npt.NDArray[np.int16]
    frames: Int32
    orders: list[Int32]
    hits: Bool
    places: Int32
    errors: dict[str, Float64]
    vertical_errors: Float64
    truth_labels: npt.NDArray[np.int16]
    truth_frames: Int32
    attributes_labeled: bool


def match_range(candidates: Candidates, classes: Sequence[str], low: float, high: float) -> Matches:
    """Match the boxes at ``low <= distance < high`` meters. Both sides are filtered first, then matched."""
    return match_subset(
        candidates, classes, in_range(candidates.predictions, low, high), in_range(candidates.truths, low, high)
    )


def match_subset(candidates: Candidates, classes: Sequence[str], keep_predictions: Bool, keep_truths: Bool) -> Matches:
    """Match some of the boxes.

    Args:
        candidates: all boxes and their near pairs.
        classes: the class list.
        keep_predictions: (N,) predictions that take part.
        keep_truths: (M,) ground truths that take part.
    """
    predictions, truths = candidates.predictions, candidates.truths
    inside = keep_predictions[candidates.pairs.predictions] & keep_truths[candidates.pairs.truths]
    matched = match_greedily(
        candidates.pairs.select(inside), groups_of(predictions), len(truths), candidates.order, np.array(DISTANCES)
    )
    partners = matched[DISTANCES.index(ERROR_DISTANCE)]
    rows = np.flatnonzero(partners >= 0)
    hit_predictions, hit_truths = predictions.select(rows), truths.select(partners[rows])
    return _matches(
        len(classes),
        predictions.scores[keep_predictions],
        predictions.labels[keep_predictions].astype(np.int16),
        predictions.frames[keep_predictions].astype(np.int32),
        matched[:, keep_predictions] >= 0,
        errors_of_matches(hit_predictions, hit_truths, classes),
        np.abs(hit_predictions.centers[:, 2].astype(np.float64) - hit_truths.centers[:, 2]),
        truths.labels[keep_truths].astype(np.int16),
        truths.frames[keep_truths].astype(np.int32),
        bool((truths.attributes[keep_truths] != NO_ATTRIBUTE).any()),
    )


def join(parts: Sequence[Matches]) -> Matches:
    """The matches of all frames, from those of some frames each, in order: frames are matched each for itself."""
    return _matches(
        len(parts[0].orders),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.frames for part in parts]),
        np.concatenate([part.hits for part in parts], axis=1),
        {name: np.concatenate([part.errors[name] for part in parts]) for name in ERRORS},
        np.concatenate([part.vertical_errors for part in parts]),
        np.concatenate([part.truth_labels for part in parts]),
        np.concatenate([part.truth_frames for part in parts]),
        any(part.attributes_labeled for part in parts),
    )


def _matches(
    num_classes: int,
    scores: npt.NDArray[np.floating],
    labels: npt.NDArray[np.int16],
    frames: Int32,
    hits: Bool,
    errors: dict[str, Float64],
    vertical_errors: Float64,
    truth_labels: npt.NDArray[np.int16],
    truth_frames: Int32,
    attributes_labeled: bool,
) -> Matches:
    """Matches, with the orders and places that follow from the rest."""
    order = descending_scores(scores).astype(np.int32)
    by_score = labels[order]
    return Matches(
        scores, labels, frames, [order[by_score == label] for label in range(num_classes)], hits,
        np.cumsum(hits[DISTANCES.index(ERROR_DISTANCE)], dtype=np.int32) - np.int32(1),
        errors, vertical_errors, truth_labels, truth_frames, attributes_labeled,
    )  # fmt: skip


def score(matches: Matches, classes: Sequence[str], copies: Int | None = None) -> NuscenesScore:
    """The metric of matched boxes.

    Args:
        matches: what `match_range` gave.
        classes: the class list.
        copies: (F,) how many times each frame counts; None: once. Resampling the frames needs no new matching.
    """
    orders, weights = matches.orders, None
    if copies is not None:
        orders = [np.repeat(order, copies[matches.frames[order]]) for order in orders]
        weights = copies[matches.truth_frames]
    counts = np.bincount(matches.truth_labels, weights=weights, minlength=len(classes))
    return NuscenesScore(
        {name: _score_class(name, matches, orders[label], int(counts[label])) for label, name in enumerate(classes)},
        attributes_labeled=matches.attributes_labeled,
    )


def score_range(candidates: Candidates, classes: Sequence[str], low: float, high: float) -> NuscenesScore:
    """The metric of the boxes at ``low <= distance < high`` meters."""
    return score(match_range(candidates, classes, low, high), classes)


def score_frames(
    predictions: Sequence[Boxes3D], truths: Sequence[Boxes3D], classes: Sequence[str], reach: float
) -> NuscenesScore:
    """The metric of frames that are at hand as they are, ground truth without lidar points included.

    Args:
        predictions, truths: per frame, boxes in the ego frame.
        classes: the class list.
        reach: boxes whose center is nearer to the ego than this take part [m].
    """
    return score_range(_candidates(table_of(predictions), table_of(truths)), classes, 0.0, reach)


def _score_class(name: str, matches: Matches, order: Int32, num_truths: int) -> ClassScore:
    """Score one class, whose predictions by descending score are the rows ``order`` (K,)."""
    scores = matches.scores[order].astype(np.float64)
    precision = np.zeros((len(DISTANCES), len(RECALLS)))
    confidence = np.zeros((len(DISTANCES), len(RECALLS)))
    for level in range(len(DISTANCES)):
        hits = matches.hits[level, order]
        if num_truths and hits.any():
            precision[level], confidence[level] = sampled_curve(hits, scores, num_truths)
    ap = {distance: average_precision(precision[level]) for level, distance in enumerate(DISTANCES)}
    level = DISTANCES.index(ERROR_DISTANCE)
    hits = matches.hits[level, order]
    places, hit_scores = matches.places[order[hits]], scores[hits]
    undefined = UNDEFINED_ERRORS.get(name, frozenset())
    errors = {
        error: float("nan") if error in undefined else mean_error(values[places], hit_scores, confidence[level])
        for error, values in matches.errors.items()
    }
    vertical = float(matches.vertical_errors[places].mean()) if len(places) else float("nan")
    return ClassScore(ap, errors, vertical, num_truths, len(order), precision)


def errors_of_matches(predicted: BoxTable, actual: BoxTable, classes: Sequence[str]) -> dict[str, Float64]:
    """Errors of K matched pairs, each (K,); NaN where the ground truth doesn't know the velocity or attribute."""
    offset = predicted.centers[:, :2].astype(np.float64) - actual.centers[:, :2]
    known = actual.attributes != NO_ATTRIBUTE
    periods = np.array([np.pi if name in _HALF_TURN_CLASSES else 2 * np.pi for name in classes])
    return {
        "ATE": np.sqrt(np.sum(offset**2, axis=1)),
        "ASE": 1.0 - aligned_iou(predicted.sizes.astype(np.float64), actual.sizes.astype(np.float64)),
        "AOE": yaw_error(actual.yaws.astype(np.float64), predicted.yaws.astype(np.float64), periods[actual.labels]),
        "AVE": np.sqrt(np.sum((predicted.velocities.astype(np.float64) - actual.velocities) ** 2, axis=1)),
        "AAE": np.where(known, (predicted.attributes != actual.attributes).astype(np.float64), np.nan),
    }


def aligned_iou(first: Float64, second: Float64) -> Float64:
    """(K,) 3D IoU of boxes with sizes (K, 3) > 0 laid over one another, same center and heading."""
    intersection = np.prod(np.minimum(first, second), axis=1)
    union = np.prod(first, axis=1) + np.prod(second, axis=1) - intersection
    return np.asarray(intersection / union)
