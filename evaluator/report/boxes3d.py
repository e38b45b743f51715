"""3D boxes that the report counts and draws, in the ego frame, and which of them are the same thing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from evaluator.boxes3d.t4 import HEADLINE_RULE
from evaluator.boxes3d.t4_matching import RULES
from evaluator.metrics.detection3d import FRAMES_AT_A_TIME, HEADLINE_RANGE, RANGES
from evaluator.report.material import Material
from shared.arrays import Int64
from shared.metrics.box_table import BoxTable, join_tables, table_of, to_ego_frame
from shared.metrics.matching import descending_scores, groups_of, match_greedily, pairs_within
from shared.metrics.nuscenes import ERROR_DISTANCE
from shared.tasks.detection3d import Boxes3D


@dataclass(frozen=True)
class Frames:
    """Boxes of one frame or of all.

    Attributes:
        truths: labeled boxes with points, within the headline range.
        predictions: per run of the pair, the boxes within that range, of any score.
    """

    truths: BoxTable
    predictions: dict[str, BoxTable]

    def sure(self, material: Material) -> Frames:
        """The same with the predictions alone whose score reaches that of the best F1 of their class."""
        kept = {
            name: boxes.select(boxes.scores >= thresholds(material, name)[boxes.labels])
            for name, boxes in self.predictions.items()
        }
        return replace(self, predictions=kept)


#: T4's largest center distance [m], at which the score of the best F1 is taken.
BEST_F1_DISTANCE = RULES[HEADLINE_RULE].thresholds[-1]


def thresholds(material: Material, run: str) -> npt.NDArray[np.float64]:
    """(C,) score of the best F1 at T4's largest distance; 0 for a class where none is known."""
    classes = material.evaluations[run]["metrics"]["t4"]["ranges"][HEADLINE_RANGE][HEADLINE_RULE]["classes"]
    best = [classes[name]["thresholds"][str(BEST_F1_DISTANCE)]["optimal_confidence"] for name in material.spec.classes]
    return np.array([0.0 if value is None else value for value in best])


def frames_of(material: Material, only: int | None = None) -> Frames:
    """The boxes of all labeled frames; or those of one, as frame 0."""
    truth = material.truth
    if only is None:
        chosen, truths = range(len(truth.positions)), truth.boxes
    else:
        own = truth.boxes.of_frames(only, only + 1)
        chosen, truths = range(only, only + 1), replace(own, frames=np.zeros_like(own.frames))
    predictions = {}
    for name in material.pair:
        tables = []
        for first in range(0, len(chosen), FRAMES_AT_A_TIME):
            some = chosen[first : first + FRAMES_AT_A_TIME]
            found = material.runs[name].predictions_at([truth.positions[frame] for frame in some], Boxes3D)
            boxes = [to_ego_frame(each, truth.lidar2ego[frame]) for each, frame in zip(found, some, strict=True)]
            tables.append(_within_range(table_of(boxes, first)))
        predictions[name] = join_tables(tables)
    return Frames(_within_range(truths.select(truths.num_points != 0)), predictions)


def _within_range(table: BoxTable) -> BoxTable:
    low, high = RANGES[-1]
    distances = table.distances_to_ego()
    return table.select((distances >= low) & (distances < high))


def matches(
    predictions: BoxTable, truths: BoxTable, families: Int64 | None = None, limit: float = ERROR_DISTANCE
) -> Int64:
    """(N,) ground truth of each prediction, -1 for none, at the distance at which nuScenes measures errors.

    Surer predictions choose first, so that leaving out those below a score changes nothing about the others.
    """
    pairs = pairs_within(predictions, truths, limit, families=families)
    order = descending_scores(predictions.scores)
    groups, limits = groups_of(predictions, families), np.array([limit])
    return np.asarray(match_greedily(pairs, groups, len(truths), order, limits)[0])


def nearest(predictions: BoxTable, truths: BoxTable, num_classes: int) -> Int64:
    """(N,) the nearest ground truth of any class within that distance, -1 for none; several may have the same."""
    pairs = pairs_within(predictions, truths, ERROR_DISTANCE, families=np.zeros(num_classes, np.int64))
    found = np.full(len(predictions), -1, np.int64)
    rows, first = np.unique(pairs.predictions, return_index=True)
    found[rows] = pairs.truths[first]
    return found
