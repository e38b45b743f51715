"""The metrics of this tool for boxes that our runtime did not make: a vehicle's own node, another framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluator.boxes3d import t4
from evaluator.boxes3d.presentation import nuscenes_json, nuscenes_tables, t4_json, t4_tables
from evaluator.metrics.detection3d import RANGES, range_name
from evaluator.submission import Submission, read_submission
from shared.errors import InputError, UsageError
from shared.files import write_json
from shared.metrics import nuscenes

#: Name of the result with each class in its own range.
OVERALL = "all"
#: Range [m] of classes that no range is given for: that of AWML's models.
DEFAULT_RANGE = 121.0


def score_detection3d(
    truth_file: Path,
    predictions_file: Path,
    classes: Sequence[str],
    metric: str,
    class_range: str | None,
    output: Path | None,
) -> str:
    """Score a file of predictions against a file of ground truth. Returns what to print.

    Raises:
        UsageError: classes or ranges that make no sense.
        InputError: a file that is not what it should be.
    """
    if len(set(classes)) != len(classes) or not all(classes):
        raise UsageError(f"class names repeat or are empty: {', '.join(classes)}", where="--classes")
    limits = parse_class_range(class_range, classes)
    attributes: dict[str, int] = {}
    # nuscenes-devkit takes equal scores in the order of the predictions' file, so that its samples come first.
    predictions = read_submission(predictions_file, classes, None, attributes, truth=False)
    truths = read_submission(truth_file, classes, predictions.tokens, attributes, truth=True)
    result: dict[str, Any] = {
        "task": "detection3d",
        "metric": metric,
        "frames": len(predictions.tokens),
        "classes": list(classes),
        "class_range": dict(zip(classes, limits.tolist(), strict=True)),
        "ranges": _nuscenes(predictions, truths, classes, limits)
        if metric == "nuscenes"
        else _t4(predictions, truths, classes, limits, truth_file),
    }
    if output is not None:
        write_json(output, result)
    tables = nuscenes_tables(result, OVERALL) if metric == "nuscenes" else t4_tables(result, OVERALL)
    return "\n\n".join(table.text() for table in tables)


def parse_class_range(text: str | None, classes: Sequence[str]) -> npt.NDArray[np.float64]:
    """(C,) range of each class [m].

    Args:
        text: ``50``, or ``car=50,pedestrian=40``; classes that are not named get `DEFAULT_RANGE`.
        classes: class list.

    Raises:
        UsageError: a class that is not in the list, or no positive number.
    """
    limits = dict.fromkeys(classes, DEFAULT_RANGE)
    for part in [] if text is None else text.split(","):
        name, separator, number = part.rpartition("=")
        name = name.strip()
        if separator and name not in limits:
            raise UsageError(
                f"'{name}' is not among the classes", where="--class-range", hint=f"there are: {', '.join(classes)}"
            )
        try:
            value = float(number)
        except ValueError:
            value = float("nan")
        if not value > 0:
            raise UsageError(f"'{part}' is no range", where="--class-range", hint="write 50, or car=50,pedestrian=40")
        limits.update({name: value} if separator else dict.fromkeys(classes, value))
    return np.array([limits[name] for name in classes])


def _nuscenes(
    predictions: Submission, truths: Submission, classes: Sequence[str], limits: npt.NDArray[np.float64]
) -> Mapping[str, Any]:
    candidates = nuscenes.find_candidates(predictions.boxes, truths.boxes)
    distances = truths.distances[truths.boxes.num_points != 0]
    sides = ((predictions.distances, predictions.boxes.labels), (distances, candidates.truths.labels))

    def score(low: float, high: npt.NDArray[np.float64] | float) -> dict[str, Any]:
        limit = np.broadcast_to(high, len(classes))
        keep = [(low <= distance) & (distance < limit[labels]) for distance, labels in sides]
        matches = nuscenes.match_subset(candidates, classes, *keep)
        return nuscenes_json(nuscenes.score(matches, classes))

    return {OVERALL: score(0.0, limits), **{range_name(*bounds): score(*bounds) for bounds in RANGES}}


def _t4(
    predictions: Submission,
    truths: Submission,
    classes: Sequence[str],
    limits: npt.NDArray[np.float64],
    truth_file: Path,
) -> Mapping[str, Any]:
    if not (predictions.in_ego_frame and truths.in_ego_frame):
        raise InputError(
            "metric t4 looks at boxes from the vehicle and needs them in the ego frame",
            where=str(truth_file),
            hint="give translations in the ego frame, without ego_translation",
        )
    candidates = t4.find_candidates(predictions.boxes, truths.boxes)

    def score(low: float, high: npt.NDArray[np.float64] | float) -> dict[str, Any]:
        limit = np.broadcast_to(high, len(classes))
        keep = [
            (low < boxes.distances_to_ego()) & (boxes.distances_to_ego() < limit[boxes.labels])
            for boxes in (candidates.predictions, candidates.truths)
        ]
        return t4_json(t4.score(t4.match_subset(candidates, *keep), classes))

    return {OVERALL: score(0.0, limits), **{range_name(*bounds): score(*bounds) for bounds in RANGES}}
