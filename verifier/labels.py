"""The labels of samples, in the containers that a task's results come in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.data import Sample
from shared.data.camera_pairs import CameraPair
from shared.data.labels import labels_in
from shared.data.types import ImageSample
from shared.tasks.classification import ClassScores
from shared.tasks.detection2d import Boxes2D
from shared.tasks.detection3d import Boxes3D

Int64 = npt.NDArray[np.int64]


def _boxes3d(sample: Sample, to_model: Int64) -> Boxes3D | None:
    """As in the evaluator: nobody could have seen a box that is known to have no point."""
    if sample.ground_truth is None:
        return None
    boxes = replace(sample.ground_truth, labels=to_model[sample.ground_truth.labels])
    return boxes.select((boxes.labels >= 0) & (boxes.num_points != 0))


def _boxes2d(sample: ImageSample, to_model: Int64) -> Boxes2D | None:
    if sample.labels is None:
        return None
    boxes = replace(sample.labels.boxes, labels=to_model[sample.labels.boxes.labels])
    return boxes.select((boxes.labels >= 0) & ~sample.labels.ignored)


def _class_scores(sample: CameraPair, to_model: Int64) -> ClassScores:
    """Logits that say the label. A model of this task has the classes of the data set, in its own order."""
    logits = np.zeros((1, len(to_model) - 1), np.float32)
    logits[0, to_model[sample.label]] = 1.0
    return ClassScores(logits)


_BY_TASK: Mapping[str, Callable[[Any, Int64], Any]] = {
    "detection3d": _boxes3d,
    "detection2d": _boxes2d,
    "classification": _class_scores,
}


def labels_of(
    task: str, samples: Sequence[Any], label_classes: Sequence[str], classes: Sequence[str]
) -> list[Any] | None:
    """What is labeled, with the model's classes; labels of other classes are left out.

    Returns:
        One container a sample; None where one of them has no labels.
    """
    to_model = labels_in(classes, label_classes)
    found = [_BY_TASK[task](sample, to_model) for sample in samples]
    return None if any(labels is None for labels in found) else found
