"""Center distance AP and true positive errors as nuScenes defines them.

A small, plain implementation: training and quantization need a number. The evaluator has the complete one, and tests
hold this one against it and against nuscenes-devkit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.tasks.detection3d import Boxes3D

DISTANCE_THRESHOLDS = (0.5, 1.0, 2.0, 4.0)  # [m]
ERROR_THRESHOLD = 2.0  # true positives within this distance give orientation and velocity errors [m]
RECALL_GRID = np.linspace(0.0, 1.0, 101)
FIRST_POINT = 11  # recall above 0.1
MIN_PRECISION = 0.1


@dataclass(frozen=True)
class Matches:
    """Detections of one class over all frames by falling score: which are true, and their errors (NaN if not)."""

    scores: NDArray[np.float64]
    is_true: NDArray[np.bool_]
    yaw_errors: NDArray[np.float64]
    velocity_errors: NDArray[np.float64]
    truths: int


def evaluate(
    predictions: Sequence[Boxes3D], truths: Sequence[Boxes3D], classes: Sequence[str], max_range: float
) -> dict[str, float]:
    """Return mAP, mAOE, mAVE and the AP of each class, all frames together.

    Args:
        predictions, truths: per frame, boxes about the vehicle; labels index `classes`.
        classes: every class counts, one without truths 0.
        max_range: centers nearer than this to the origin take part, seen from above [m].
    """
    near_predictions = [within(boxes, max_range) for boxes in predictions]
    near_truths = [within(boxes, max_range) for boxes in truths]
    results: dict[str, float] = {}
    orientation, velocity = [], []
    for label, name in enumerate(classes):
        by_threshold = {
            threshold: match(near_predictions, near_truths, label, threshold) for threshold in DISTANCE_THRESHOLDS
        }
        results[f"AP/{name}"] = float(np.mean([average_precision(m) for m in by_threshold.values()]))
        at_error_threshold = by_threshold[ERROR_THRESHOLD]
        orientation.append(true_positive_error(at_error_threshold, at_error_threshold.yaw_errors))
        velocity.append(true_positive_error(at_error_threshold, at_error_threshold.velocity_errors))
        results[f"AOE/{name}"] = orientation[-1]
    results["mAP"] = float(np.mean([results[f"AP/{name}"] for name in classes]))
    results["mAOE"] = float(np.mean(orientation))
    results["mAVE"] = float(np.mean(velocity))
    return results


def within(boxes: Boxes3D, limit: float) -> Boxes3D:
    """Return the boxes whose centers are less than `limit` meters away."""
    distances = np.hypot(boxes.centers[:, 0].astype(np.float64), boxes.centers[:, 1])
    return boxes.select(distances < limit)


def match(predictions: Sequence[Boxes3D], truths: Sequence[Boxes3D], label: int, threshold: float) -> Matches:
    """Let each detection, best first, take the nearest free truth of its frame if it is nearer than the threshold."""
    frame = np.concatenate([np.full(np.count_nonzero(p.labels == label), i) for i, p in enumerate(predictions)])
    row = np.concatenate([np.flatnonzero(p.labels == label) for p in predictions])
    scores = np.concatenate([p.scores[p.labels == label] for p in predictions]).astype(np.float64)
    order = np.argsort(scores, kind="stable")[::-1]
    truth_rows = [np.flatnonzero(t.labels == label) for t in truths]
    free = [np.ones(len(rows), dtype=bool) for rows in truth_rows]
    is_true = np.zeros(len(order), dtype=bool)
    yaw_errors, velocity_errors = np.full(len(order), np.nan), np.full(len(order), np.nan)
    for position, chosen in enumerate(order.tolist()):
        index = int(frame[chosen])
        if not free[index].any():
            continue
        found, truth = predictions[index], truths[index]
        rows = truth_rows[index]
        gaps = np.linalg.norm(truth.centers[rows, :2].astype(np.float64) - found.centers[row[chosen], :2], axis=1)
        gaps[~free[index]] = np.inf
        nearest = int(np.argmin(gaps))
        if gaps[nearest] >= threshold:
            continue
        free[index][nearest] = False
        is_true[position] = True
        turn = float(found.yaws[row[chosen]]) - float(truth.yaws[rows[nearest]])
        yaw_errors[position] = abs((turn + np.pi) % (2 * np.pi) - np.pi)
        speed_error = found.velocities[row[chosen]].astype(np.float64) - truth.velocities[rows[nearest]]
        velocity_errors[position] = np.linalg.norm(speed_error)
    return Matches(scores[order], is_true, yaw_errors, velocity_errors, sum(map(len, truth_rows)))


def average_precision(matches: Matches) -> float:
    """Return AP: mean over recalls above 0.1 of the precision above 0.1, scaled to 0..1."""
    if matches.truths == 0 or not matches.is_true.any():
        return 0.0
    true = np.cumsum(matches.is_true)
    precision = true / np.arange(1, len(true) + 1)
    curve = np.interp(RECALL_GRID, true / matches.truths, precision, right=0.0)
    return float(np.mean(np.maximum(curve[FIRST_POINT:] - MIN_PRECISION, 0.0)) / (1.0 - MIN_PRECISION))


def true_positive_error(matches: Matches, errors: NDArray[np.float64]) -> float:
    """Return the mean over recalls from 0.11 on of the running mean error; 1 where that recall is never reached."""
    true = np.cumsum(matches.is_true)
    reached = int(true[-1] / matches.truths * 100) if matches.truths and len(true) else 0
    if reached < FIRST_POINT:
        return 1.0
    of_true = errors[matches.is_true]
    running = np.cumsum(of_true) / np.arange(1, len(of_true) + 1)
    score_at_recall = np.interp(RECALL_GRID, true / matches.truths, matches.scores, right=0.0)
    on_grid = np.interp(score_at_recall[::-1], matches.scores[matches.is_true][::-1], running[::-1])[::-1]
    return float(np.mean(on_grid[FIRST_POINT : reached + 1]))
