"""Metric of 3D detection: the nuScenes metric, over all and per range from the vehicle.

Ranges are AWML's for 121 m models. A range takes the boxes whose centre is ``low <= distance < high`` metres from the
ego, on both sides, and matches after that: so every box belongs to exactly one of 0-50, 50-90 and 90-121 m, and
0-121 m is what nuscenes-devkit gives with a class range of 121 m.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from evaluator.boxes3d.nuscenes import NuscenesScore, find_candidates, score_range
from evaluator.boxes3d.table import BoxTable, check_table, table_of, to_ego_frame
from shared.errors import InputError
from shared.runs import Run
from shared.table import Table, number

#: Ranges [m] that are reported; the last is the headline.
RANGES: tuple[tuple[float, float], ...] = ((0, 50), (50, 90), (90, 121), (0, 121))


class Truth:
    """Ground truth of a list of samples.

    Attributes:
        boxes: the labelled boxes, in the ego frame.
        lidar2ego: per sample, the (4, 4) pose of the lidar on the vehicle, to bring predictions to the same frame.
    """

    def __init__(self, samples: Iterable[Any], classes: Sequence[str]) -> None:
        frames = []
        self.lidar2ego = []
        for sample in samples:
            if sample.ground_truth is None:
                raise InputError(
                    "the sample has no labels", where=f"sample {sample.token}", hint="evaluate on a labelled data set"
                )
            # Label -1 marks objects that belong to none of the classes; they are neither wanted nor wrong.
            known = sample.ground_truth.select(sample.ground_truth.labels >= 0)
            frames.append(to_ego_frame(known, sample.lidar2ego))
            self.lidar2ego.append(sample.lidar2ego)
        self.boxes: BoxTable = table_of(frames)
        check_table(self.boxes, classes, "ground truth")


def ground_truth(samples: Iterable[Any], classes: Sequence[str]) -> Truth:
    """Ground truth of ``samples``, labels indexing ``classes``.

    Raises:
        InputError: a sample without labels, or labels that make no sense.
    """
    return Truth(samples, classes)


def evaluate(run: Run, truth: Truth, classes: Sequence[str]) -> dict[str, Any]:
    """Score the run's boxes against ``truth``.

    Args:
        run: the run; its samples are those of ``truth``, in the same order.
        truth: what `ground_truth` gave.
        classes: class list that the labels index.

    Returns:
        JSON: per range the mAP, NDS, mean errors, and per class AP and errors; curves for the headline range.

    Raises:
        InputError: NaN in a box or score, sizes that are not positive, labels outside the list.
    """
    frames = [
        to_ego_frame(boxes, lidar2ego) for boxes, lidar2ego in zip(run.all_boxes(), truth.lidar2ego, strict=True)
    ]
    predictions = table_of(frames)
    check_table(predictions, classes, f"predictions of {run.folder.name}")
    candidates = find_candidates(predictions, truth.boxes)
    scores = {_range_name(low, high): score_range(candidates, classes, low, high) for low, high in RANGES}
    headline_range = _range_name(*RANGES[-1])
    return {
        "metric": "nuscenes",
        "frames": len(frames),
        "classes": list(classes),
        "headline_range": headline_range,
        "ranges": {name: _as_json(score) for name, score in scores.items()},
        "curves": {
            name: {str(d): curve.tolist() for d, curve in zip(score.average_precision, score.precision, strict=True)}
            for name, score in scores[headline_range].classes.items()
        },
    }


def headline(result: dict[str, Any]) -> dict[str, float | None]:
    """mAP per range, then NDS and mean errors of the headline range."""
    overall = result["ranges"][result["headline_range"]]
    numbers = {"mAP": overall["mAP"], "NDS": overall["NDS"]}
    numbers |= {f"mAP {name} m": values["mAP"] for name, values in result["ranges"].items()}
    return numbers | dict(overall["errors"])


def tables(result: dict[str, Any]) -> list[Table]:
    """mAP per range and class, and the headline range in detail."""
    ranges: dict[str, Any] = result["ranges"]
    per_range = [
        [name, *(number(values["classes"][name]["AP"], 4) for values in ranges.values())]
        for name in result["classes"]
    ]
    per_range.append(["mAP", *(number(values["mAP"], 4) for values in ranges.values())])
    per_range.append(["ground truth", *(str(values["num_truths"]) for values in ranges.values())])
    overall = ranges[result["headline_range"]]
    detail = []
    for name in result["classes"]:
        values = overall["classes"][name]
        detail.append(
            [
                name,
                str(values["num_truths"]),
                str(values["num_predictions"]),
                *(number(ap, 4) for ap in values["AP_at"].values()),
                *(number(error, 3) for error in values["errors"].values()),
            ]
        )
    first = next(iter(overall["classes"].values()))
    return [
        Table(
            f"Average precision per range [m], {result['frames']} frames",
            ["class", *ranges],
            per_range,
        ),
        Table(
            f"{result['headline_range']} m: AP per centre distance [m], errors of the hits at 2 m",
            ["class", "truth", "found", *(f"AP@{d}" for d in first["AP_at"]), *first["errors"]],
            detail,
        ),
    ]


def _range_name(low: float, high: float) -> str:
    return f"{low:g}-{high:g}"


def _as_json(score: NuscenesScore) -> dict[str, Any]:
    return {
        "mAP": score.mean_average_precision,
        "NDS": score.nds,
        "errors": _without_nan(score.errors),
        "num_truths": sum(value.num_truths for value in score.classes.values()),
        "num_predictions": sum(value.num_predictions for value in score.classes.values()),
        "classes": {
            name: {
                # Without ground truth there is nothing to be precise about; in the mean it counts 0, see NuscenesScore.
                "AP": value.mean_average_precision if value.num_truths else None,
                "AP_at": {str(d): ap if value.num_truths else None for d, ap in value.average_precision.items()},
                "errors": _without_nan(value.errors),
                "num_truths": value.num_truths,
                "num_predictions": value.num_predictions,
            }
            for name, value in score.classes.items()
        },
    }


def _without_nan(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in values.items()}
