"""Images' boxes as the metrics take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from shared.data.types import ImageLabels
from shared.errors import InputError
from shared.tasks.detection2d import Boxes2D


def labels_of_model(labels: ImageLabels, to_model: npt.NDArray[np.int64]) -> ImageLabels:
    """The labels of a sample in the classes of a model, without boxes of those that it does not know.

    Args:
        labels: of the sample.
        to_model: (L + 1,) for each label of the data set that of the model, -1 for none; the last is -1.
    """
    boxes = replace(labels.boxes, labels=to_model[labels.boxes.labels])
    known = boxes.labels >= 0
    return ImageLabels(boxes.select(known), labels.ignored[known], labels.areas[known])


def check_boxes(boxes: Boxes2D, classes: Sequence[str], where: str) -> None:
    """Refuse boxes that no metric can be computed from.

    Boxes of zero size are allowed: Autoware's whole pixels, clipped at the edge of the image, give some.

    Raises:
        InputError: NaN or infinity, a right edge left of the left one, or a label outside the list.
    """
    if not (np.isfinite(boxes.corners).all() and np.isfinite(boxes.scores).all()):
        raise InputError("a box or score is NaN or infinite", where=where)
    if (boxes.corners[:, 2:] < boxes.corners[:, :2]).any():
        raise InputError("a box is turned inside out: its right or bottom edge comes first", where=where)
    if len(boxes) and not (boxes.labels.min() >= 0 and boxes.labels.max() < len(classes)):
        raise InputError(f"a label is outside the list of {len(classes)} classes", where=where)
