"""Metrics of 3D detection: nuScenes' and TIER IV's, over all and per range from the vehicle.

Ranges are AWML's for 121 m models. A range takes the boxes whose center is so far from the ego, on both sides, and
matches after that. nuScenes' takes ``low <= distance < high``: every box belongs to exactly one of 0-50, 50-90 and
90-121 m, and 0-121 m is what nuscenes-devkit gives with a class range of 121 m. T4's takes ``low < distance < high``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluator.bootstrap import Copies
from evaluator.boxes3d import settings, t4, t4_matching
from evaluator.boxes3d.presentation import as_named, curves_json, nuscenes_json, nuscenes_tables, t4_json, t4_tables
from shared.config.check_sections import Evaluation, T4Metric
from shared.data.labels import labels_in
from shared.data.types import Sample
from shared.errors import InputError
from shared.metrics import nuscenes
from shared.metrics.box_table import BoxTable, check_table, join_tables, table_of, to_ego_frame
from shared.progress import track
from shared.runs import Run
from shared.table import Table
from shared.tasks.detection3d import Boxes3D

#: Ranges [m] that are reported; the last is the headline.
RANGES: tuple[tuple[float, float], ...] = ((0, 50), (50, 90), (90, nuscenes.REACH), (0, nuscenes.REACH))

#: Frames whose boxes are in memory at a time; of the others only what a score needs.
FRAMES_AT_A_TIME = 2000


def range_name(low: float, high: float) -> str:
    """``50-90`` for the range from 50 to 90 m."""
    return f"{low:g}-{high:g}"


HEADLINE_RANGE = range_name(*RANGES[-1])


@dataclass(frozen=True)
class Truth:
    """Ground truth of a list of samples.

    Attributes:
        boxes: the labeled boxes, in the ego frame; frame i is the i-th labeled sample.
        positions: positions of the labeled samples in the list; predictions on the others can't be judged.
        tokens, scenes: per labeled sample, its token and the drive it is from.
        lidar2ego: per labeled sample, the (4, 4) pose of the lidar on the vehicle, which predictions need too.
        num_samples: length of the list.
    """

    boxes: BoxTable
    positions: list[int]
    tokens: list[str]
    scenes: list[str]
    lidar2ego: list[npt.NDArray[np.float64]]
    num_samples: int


def ground_truth(samples: Iterable[Sample], label_classes: Sequence[str], classes: Sequence[str]) -> Truth | None:
    """Ground truth of ``samples``, labels indexing ``classes``; None when no sample is labeled.

    Boxes of classes that the model does not know are left out, as are those of no class (label -1): they are neither
    wanted nor wrong.

    Raises:
        InputError: labels that make no sense.
    """
    to_model = labels_in(classes, label_classes)
    tables: list[BoxTable] = []
    frames: list[Boxes3D] = []
    positions: list[int] = []
    tokens: list[str] = []
    scenes: list[str] = []
    poses: list[npt.NDArray[np.float64]] = []
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
        labeled = replace(boxes, labels=to_model[boxes.labels])
        frames.append(to_ego_frame(labeled.select(labeled.labels >= 0), sample.lidar2ego))
        positions.append(position)
        tokens.append(sample.token)
        scenes.append(sample.scene)
        poses.append(sample.lidar2ego)
        if len(frames) == FRAMES_AT_A_TIME:
            tables.append(table_of(frames, len(positions) - len(frames)))
            frames = []
    if not positions:
        return None
    table = join_tables([*tables, table_of(frames, len(positions) - len(frames))])
    check_table(table, classes, "ground truth")
    return Truth(table, positions, tokens, scenes, poses, count)


@dataclass(frozen=True)
class Matched:
    """A run's boxes matched with the truth, by range.

    Attributes:
        truth: the truth.
        classes: class list that labels index.
        nuscenes, t4: matches of each metric, by name of the range.
        t4_settings: how the T4 metric is computed.
    """

    truth: Truth
    classes: Sequence[str]
    nuscenes: dict[str, nuscenes.Matches]
    t4: dict[str, t4_matching.Matches]
    t4_settings: T4Metric = settings.USUAL


def match(run: Run, truth: Truth, classes: Sequence[str], evaluation: Evaluation) -> Matched:
    """Match the run's boxes with ``truth``, for both metrics and every range.

    Raises:
        UsageError: ``evaluation.t4`` names a class that the model does not have.
        InputError: another number of samples; NaN in a box or score, sizes that are not positive, labels outside the
            list.
    """
    if len(run) != truth.num_samples:
        raise InputError(f"holds {len(run)} samples, the ground truth {truth.num_samples}", where=str(run.folder))
    ours: dict[str, list[nuscenes.Matches]] = {range_name(*limits): [] for limits in RANGES}
    official: dict[str, list[t4_matching.Matches]] = {range_name(*limits): [] for limits in RANGES}
    count = len(truth.positions)
    starts = range(0, count, FRAMES_AT_A_TIME)
    for first in track(starts, f"matching {run.folder.name}", len(starts)):
        end = min(first + FRAMES_AT_A_TIME, count)
        boxes = [
            to_ego_frame(found, lidar2ego)
            for found, lidar2ego in zip(
                run.predictions_at(truth.positions[first:end], Boxes3D), truth.lidar2ego[first:end], strict=True
            )
        ]
        predictions, truths = table_of(boxes, first), truth.boxes.of_frames(first, end)
        check_table(predictions, classes, f"predictions of {run.folder.name}")
        nuscenes_candidates = nuscenes.find_candidates(predictions, truths)
        t4_candidates = settings.candidates(predictions, truths, classes, evaluation.t4)
        for limits in RANGES:
            ours[range_name(*limits)].append(nuscenes.match_range(nuscenes_candidates, classes, *limits))
            official[range_name(*limits)].append(t4_matching.match_range(t4_candidates, *limits))
    # Each is given up as it is joined: all of them twice would be too much.
    return Matched(
        truth,
        classes,
        {name: nuscenes.join(ours.pop(name)) for name in list(ours)},
        {name: t4_matching.join(official.pop(name)) for name in list(official)},
        evaluation.t4,
    )


def evaluate(matched: Matched) -> dict[str, Any]:
    """Both metrics of matched boxes.

    Returns:
        JSON: ``nuscenes`` and ``t4``, each per range and class; precision curves for the headline range;
        ``computed_with``, which settings of the T4 metric are not the usual ones, and ``depends_on_settings``, the
        numbers of `headline` that change with them.
    """
    truth, classes = matched.truth, matched.classes
    scores = {name: nuscenes.score(matches, classes) for name, matches in matched.nuscenes.items()}
    return {
        "frames": len(truth.positions),
        "frames_without_labels": truth.num_samples - len(truth.positions),
        "classes": list(classes),
        "headline_range": HEADLINE_RANGE,
        "computed_with": as_named(matched.t4_settings.model_dump()).removeprefix(", "),
        "depends_on_settings": list(_T4_NUMBERS),
        "nuscenes": {
            "ranges": {name: nuscenes_json(score) for name, score in scores.items()},
            "curves": curves_json(scores[HEADLINE_RANGE]),
        },
        "t4": {
            "settings": matched.t4_settings.model_dump(),
            "ranges": {name: settings.range_json(matches, classes) for name, matches in matched.t4.items()},
        },
    }


def resample(matched: Matched, copies: Copies) -> dict[str, float | None]:
    """The headline numbers if each frame counted ``copies`` (F,) times."""
    ranges = {
        name: nuscenes_json(nuscenes.score(matches, matched.classes, copies))
        for name, matches in matched.nuscenes.items()
    }
    official = t4.score(matched.t4[HEADLINE_RANGE], matched.classes, copies, (t4.HEADLINE_RULE,))
    return headline({"nuscenes": {"ranges": ranges}, "t4": {"ranges": {HEADLINE_RANGE: t4_json(official)}}})


# Of `headline`, the numbers of the T4 metric.
_T4_NUMBERS = ("T4 mAP", "T4 mAPH")
#: Of `headline`, the numbers that are errors.
LOWER_IS_BETTER = frozenset(nuscenes.ERRORS)


def headline(result: dict[str, Any]) -> dict[str, float | None]:
    """mAP, NDS and mean errors of the headline range, mAP of the other ranges, and the T4 metric's mAP and mAPH."""
    ranges = result["nuscenes"]["ranges"]
    overall = ranges[HEADLINE_RANGE]
    parts = {name: values for name, values in ranges.items() if name != HEADLINE_RANGE}
    official = result["t4"]["ranges"][HEADLINE_RANGE][t4.HEADLINE_RULE]
    return {
        "mAP": overall["mAP"],
        "NDS": overall["NDS"],
        "NDS without AAE": overall["NDS_without_AAE"],
        **{f"mAP {name} m": values["mAP"] for name, values in parts.items()},
        **overall["errors"],
        **dict(zip(_T4_NUMBERS, (official["mAP"], official["mAPH"]), strict=True)),
    }


def headline_names(_: Sequence[str]) -> list[str]:
    """Of `headline`."""
    parts = [f"mAP {range_name(*limits)} m" for limits in RANGES[:-1]]
    return ["mAP", "NDS", "NDS without AAE", *parts, *nuscenes.ERRORS, *_T4_NUMBERS]


def per_class(result: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """nuScenes' AP and the T4 metric's of the headline range."""
    ours = result["nuscenes"]["ranges"][HEADLINE_RANGE]["classes"]
    official = result["t4"]["ranges"][HEADLINE_RANGE][t4.HEADLINE_RULE]["classes"]
    return {name: {"AP": ours[name]["AP"], "T4 AP": official[name]["AP"]} for name in result["classes"]}


def tables(result: dict[str, Any]) -> list[Table]:
    """Both metrics, per range and class."""
    return [*nuscenes_tables(result["nuscenes"], HEADLINE_RANGE), *t4_tables(result["t4"], HEADLINE_RANGE)]
