"""How good a PyTorch model is on some frames of a data set, by its task's metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.data import Dataset
from shared.errors import InputError
from shared.tasks import find


@dataclass(frozen=True)
class TaskMetric:
    """A metric on chosen frames.

    Attributes:
        name: as the task calls it, ``mAP`` or ``accuracy`` for example.
        positions: of the frames in their data set.
        score: points (0 to 100) of the predictions on these frames, in their order.
    """

    name: str
    positions: tuple[int, ...]
    score: Callable[[Sequence[Any]], float]


def open_metric(task: str, dataset: Dataset[Any], classes: Sequence[str], count: int) -> TaskMetric:
    """The quick metric of a task on ``count`` frames, spread evenly over a data set (all of them where it has fewer).

    Args:
        task: its name.
        dataset: the frames and their labels.
        classes: names that the model's labels index.
        count: how many frames, at least 1.

    Raises:
        InputError: no frame has labels, or there is no such task.
    """
    found = find(task)
    to_model = found.label_map(classes, dataset.classes)
    spread = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    samples = {int(position): dataset.sample(int(position)) for position in spread}
    labeled = {
        position: sample for position, sample in samples.items() if found.labels_of(sample, to_model) is not None
    }
    if not labeled:
        raise InputError(
            f"none of {len(samples)} frames has labels, and the {task} metric needs them",
            where=dataset.name,
            hint="name a labeled data set, for example --set data.info_file=...",
        )
    metric = found.quick_metric(list(labeled.values()), to_model, classes)
    return TaskMetric(metric.name, tuple(labeled), lambda predictions: 100.0 * metric.score(predictions))
