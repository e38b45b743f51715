"""3D boxes in the shape of a nuScenes submission (`evaluator.submission`): nuScenes' metric and TIER IV's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluator.boxes3d import t4_matching
from evaluator.boxes3d.presentation import nuscenes_json, nuscenes_tables, t4_tables
from evaluator.boxes3d.settings import USUAL, candidates, chosen, range_json
from evaluator.metrics.detection3d import RANGES, range_name
from evaluator.score import Results, needed_truth
from evaluator.submission import Submission, read_submission
from shared.config.check_sections import T4Metric
from shared.errors import InputError, UsageError
from shared.metrics import nuscenes
from shared.table import Table

#: Name of the result with each class in its own range.
OVERALL = "all"
# What sums up nuScenes' metric, beside its ranges.
_SUMMARY = ("mAP", "mAP_of_labeled", "NDS", "NDS_without_AAE", "attributes_labeled", "errors")
#: The metrics, the default first.
METRICS = ("nuscenes", "t4")


def score(results: Results) -> tuple[dict[str, Any], list[Table]]:
    """See `evaluator.score.Score`."""
    truth_file, classes, metric = needed_truth(results), results.classes, results.metric or METRICS[0]
    if metric not in METRICS:
        raise UsageError(f"there is no metric '{metric}'", where="--metric", hint=f"there are: {', '.join(METRICS)}")
    if not classes:
        raise UsageError("3D boxes need classes", where="score", hint="give --classes car,truck")
    if len(set(classes)) != len(classes) or not all(classes):
        raise UsageError(f"class names repeat or are empty: {', '.join(classes)}", where="--classes")
    limits = parse_class_range(results.class_range, classes)
    t4_settings = chosen(USUAL, dict(results.t4), classes)
    if metric != "t4" and t4_settings != USUAL:
        raise UsageError(f"metric {metric} has no {', '.join(results.t4)}", where="--metric", hint="give --metric t4")
    attributes: dict[str, int] = {}
    # nuscenes-devkit takes equal scores in the order of the predictions' file, so that its samples come first.
    predictions = read_submission(results.predictions, classes, None, attributes, truth=False)
    truths = read_submission(truth_file, classes, predictions.tokens, attributes, truth=True)
    ranges = (
        _nuscenes(predictions, truths, classes, limits)
        if metric == "nuscenes"
        else _t4(predictions, truths, classes, limits, truth_file, t4_settings)
    )
    if metric == "t4":
        about: dict[str, Any] = {"settings": t4_settings.model_dump()}
    else:
        about = {key: ranges[OVERALL][key] for key in _SUMMARY}
    result: dict[str, Any] = {
        "metric": metric,
        "frames": len(predictions.tokens),
        "classes": list(classes),
        "class_range": dict(zip(classes, limits.tolist(), strict=True)),
        **about,
        "ranges": ranges,
    }
    return result, nuscenes_tables(result, OVERALL) if metric == "nuscenes" else t4_tables(result, OVERALL)


def parse_class_range(text: str | None, classes: Sequence[str]) -> npt.NDArray[np.float64]:
    """(C,) range of each class [m].

    Args:
        text: ``50``, or ``car=50,pedestrian=40``; classes that are not named reach as far as AWML's models.
        classes: class list.

    Raises:
        UsageError: a class that is not in the list, or no positive number.
    """
    limits = dict.fromkeys(classes, nuscenes.REACH)
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
            raise UsageError(
                f"'{part}' is not a range", where="--class-range", hint="write 50, or car=50,pedestrian=40"
            )
        limits.update({name: value} if separator else dict.fromkeys(classes, value))
    return np.array([limits[name] for name in classes])


def _nuscenes(
    predictions: Submission, truths: Submission, classes: Sequence[str], limits: npt.NDArray[np.float64]
) -> Mapping[str, Any]:
    found = nuscenes.find_candidates(predictions.boxes, truths.boxes)
    distances = truths.distances[truths.boxes.num_points != 0]
    sides = ((predictions.distances, predictions.boxes.labels), (distances, found.truths.labels))

    def score(low: float, high: npt.NDArray[np.float64] | float) -> dict[str, Any]:
        limit = np.broadcast_to(high, len(classes))
        keep = [(low <= distance) & (distance < limit[labels]) for distance, labels in sides]
        matches = nuscenes.match_subset(found, classes, *keep)
        return nuscenes_json(nuscenes.score(matches, classes))

    return {OVERALL: score(0.0, limits), **{range_name(*bounds): score(*bounds) for bounds in RANGES}}


def _t4(
    predictions: Submission,
    truths: Submission,
    classes: Sequence[str],
    limits: npt.NDArray[np.float64],
    truth_file: Path,
    settings: T4Metric,
) -> Mapping[str, Any]:
    if not (predictions.in_ego_frame and truths.in_ego_frame):
        raise InputError(
            "metric t4 measures from the vehicle and needs the boxes in the ego frame",
            where=str(truth_file),
            hint="give translations in the ego frame, without ego_translation",
        )
    found = candidates(predictions.boxes, truths.boxes, classes, settings)

    def score(low: float, high: npt.NDArray[np.float64] | float) -> dict[str, Any]:
        limit = np.broadcast_to(high, len(classes))
        keep = [
            (low < boxes.distances_to_ego()) & (boxes.distances_to_ego() < limit[boxes.labels])
            for boxes in (found.predictions, found.truths)
        ]
        return range_json(t4_matching.match_subset(found, *keep), classes)

    return {OVERALL: score(0.0, limits), **{range_name(*bounds): score(*bounds) for bounds in RANGES}}
