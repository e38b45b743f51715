"""Metrics of 3D segmentation: how well the labels of the points agree with the labeled ones, near and far.

The rings are those of AWML's ``T4SegMetric``: ``low <= distance < high``, of x and y in the frame of the points.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from evaluator.segmentation.scores import (
    LOWER_IS_BETTER,
    Matched,
    Tally,
    Truth,
    count_run,
    evaluate,
    headline,
    headline_names,
    per_class,
    resample,
    tables,
    truth_of,
)
from shared.arrays import Int64
from shared.config.check_sections import Evaluation
from shared.data.points import read_points
from shared.data.types import PointFile, Sample
from shared.runs import Run
from shared.tasks.segmentation3d import PointClasses

__all__ = [
    "LOWER_IS_BETTER",
    "evaluate",
    "ground_truth",
    "headline",
    "headline_names",
    "left_out",
    "match",
    "per_class",
    "resample",
    "tables",
]

#: Bounds of the rings [m].
RING_BOUNDS = (0, 20, 40, 60, 80, 100, 120)
RINGS = tuple(f"{low}-{high}" for low, high in pairwise(RING_BOUNDS))

_log = logging.getLogger("evaluate")


def ground_truth(samples: Iterable[Sample], label_classes: Sequence[str], classes: Sequence[str]) -> Truth | None:
    """The frames with labels of points; None when none has. Points of classes that the model lacks are not judged."""
    return truth_of(
        samples, lambda sample: sample.point_labels, label_classes, classes, point_file=lambda sample: sample.lidar
    )


def left_out(samples: Iterable[Sample]) -> list[str]:
    """The scores by distance, where points of a labeled frame are not here."""
    labeled = (sample.lidar for sample in samples if sample.point_labels is not None)
    return [] if _missing(labeled) is None else ["scores by distance"]


def _missing(points: Iterable[PointFile]) -> Path | None:
    return next((file.path for file in points if not file.path.is_file()), None)


def match(run: Run, truth: Truth, classes: Sequence[str], _: Evaluation) -> Matched:
    """Count the run's labels against those of ``truth``, by distance where the points are at hand.

    Raises:
        InputError: another number of samples or points, labels outside the list, a file that is not one of labels.
    """
    missing = _missing(truth.points)
    if missing is not None:
        _log.warning("no scores by distance: %s is not here", missing)
        return count_run(run, truth, PointClasses, Tally(classes, "points"))
    return count_run(run, truth, PointClasses, Tally(classes, "points", RINGS), rings_of)


def rings_of(points: PointFile) -> Int64:
    """(N,) position in `RINGS` of each point; their number for points beyond, and those without a place."""
    x, y = read_points(points).T[:2]
    distances = np.sqrt(x**2 + y**2)
    return np.asarray(np.searchsorted(np.array(RING_BOUNDS[1:], np.float32), distances, side="right"), np.int64)
