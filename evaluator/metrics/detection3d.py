"""Metric of 3D detection: the nuScenes metric, over all and per range from the vehicle.

Ranges are AWML's for 121 m models. A range takes the boxes whose centre is ``low <= distance < high`` metres from the
ego, on both sides, and matches after that: so every box belongs to exactly one of 0-50, 50-90 and 90-121 m, and
0-121 m is what nuscenes-devkit gives with a class range of 121 m.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluator.boxes3d.nuscenes import NuscenesScore, find_candidates, score_range
from evaluator.boxes3d.table import BoxTable, check_table, table_of, to_ego_frame
from shared.data.types import Sample
from shared.errors import InputError
from shared.runs import Run
from shared.table import Table, number

#: Ranges [m] that are reported; the last is the headline.
RANGES: tuple[tuple[float, float], ...] = ((0, 50), (50, 90), (90, 121), (0, 121))


@dataclass(frozen=True)
class Truth:
    """Ground truth of a list of samples.

    Attributes:
        boxes: the labelled boxes, in the ego frame; frame i is the i-th labelled sample.
        positions: positions of the labelled samples in the list; predictions on the others can't be judged.
        lidar2ego: per labelled sample, the (4, 4) pose of the lidar on the vehicle, which predictions need too.
        num_samples: length of the list.
    """

    boxes: BoxTable
    positions: list[int]
    lidar2ego: list[npt.NDArray[np.float64]]
    num_samples: int


def ground_truth(samples: Iterable[Sample], label_classes: Sequence[str], classes: Sequence[str]) -> Truth | None:
    """Ground truth of ``samples``, labels indexing ``classes``; None when no sample is labelled.

    Boxes of classes that the model does not know are left out, as are those of no class (label -1): they are neither
    wanted nor wrong.

    Args:
        samples: the samples of the runs, in order.
        label_classes: class list that the samples' labels index.
        classes: class list of the model.

    Raises:
        InputError: labels that make no sense.
    """
    to_model = np.array([classes.index(name) if name in classes else -1 for name in label_classes] + [-1], np.int64)
    frames, positions, poses = [], [], []
    count = 0
    for position, sample in enumerate(samples):
        count += 1
        if sample.ground_truth is None:
            continue
        boxes = sample.ground_truth
        if len(boxes) and boxes.labels.max() >= len(label_classes):
            raise InputError(
                f"label {int(boxes.labels.max())} is outside the list of {len(label_classes)} classes",
                where=f"ground truth of sample {sample.token}",
            )
        # Label -1 picks the last entry, which is -1 too.
        labelled = replace(boxes, labels=to_model[boxes.labels])
        frames.append(to_ego_frame(labelled.select(labelled.labels >= 0), sample.lidar2ego))
        positions.append(position)
        poses.append(sample.lidar2ego)
    if not frames:
        return None
    table = table_of(frames)
    check_table(table, classes, "ground truth")
    return Truth(table, positions, poses, count)


def evaluate(run: Run, truth: Truth, classes: Sequence[str]) -> dict[str, Any]:
    """Score the run's boxes against ``truth``.

    Args:
        run: the run; its samples are those that ``truth`` was made from, in the same order.
        truth: what `ground_truth` gave.
        classes: class list that the labels index.

    Returns:
        JSON: per range the mAP, NDS, mean errors, and per class AP and errors; curves for the headline range.

    Raises:
        InputError: another number of samples; NaN in a box or score, sizes that are not positive, labels outside the
            list.
    """
    if len(run) != truth.num_samples:
        raise InputError(f"holds {len(run)} samples, the ground truth {truth.num_samples}", where=str(run.folder))
    frames = [
        to_ego_frame(run.boxes(position), lidar2ego)
        for position, lidar2ego in zip(truth.positions, truth.lidar2ego, strict=True)
    ]
    predictions = table_of(frames)
    check_table(predictions, classes, f"predictions of {run.folder.name}")
    candidates = find_candidates(predictions, truth.boxes)
    scores = {_range_name(low, high): score_range(candidates, classes, low, high) for low, high in RANGES}
    headline_range = _range_name(*RANGES[-1])
    return {
        "metric": "nuscenes",
        "frames": len(frames),
        "frames_without_labels": truth.num_samples - len(frames),
        "classes": list(classes),
        "headline_range": headline_range,
        "ranges": {name: _as_json(score) for name, score in scores.items()},
        "curves": {
            name: {str(d): curve.tolist() for d, curve in zip(score.average_precision, score.precision, strict=True)}
            for name, score in scores[headline_range].classes.items()
        },
    }


def headline(result: dict[str, Any]) -> dict[str, float | None]:
    """mAP and NDS of the headline range, mAP of the other ranges, mean errors of the headline range."""
    overall = result["ranges"][result["headline_range"]]
    numbers = {"mAP": overall["mAP"], "NDS": overall["NDS"]}
    parts = {name: values for name, values in result["ranges"].items() if name != result["headline_range"]}
    numbers |= {f"mAP {name} m": values["mAP"] for name, values in parts.items()}
    return numbers | dict(overall["errors"])


def tables(result: dict[str, Any]) -> list[Table]:
    """mAP per range and class, and the headline range in detail."""
    ranges: dict[str, Any] = result["ranges"]
    per_range = [
        [name, *(number(values["classes"][name]["AP"], 4) for values in ranges.values())] for name in result["classes"]
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
                number(values["vertical_error"], 3),
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
            ["class", "truth", "found", *(f"AP@{d}" for d in first["AP_at"]), *first["errors"], "z"],
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
                "vertical_error": None if math.isnan(value.vertical_error) else value.vertical_error,
                "num_truths": value.num_truths,
                "num_predictions": value.num_predictions,
            }
            for name, value in score.classes.items()
        },
    }


def _without_nan(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in values.items()}
