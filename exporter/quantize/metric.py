"""How good a PyTorch model is on some frames of a data set: its task's metric, and how far outputs are from others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.data import Dataset
from shared.errors import InputError
from shared.runs import RawOutputs
from shared.tasks import find

#: Bounds of signal to noise ratios [dB]: equal outputs, and outputs that are not finite.
SNR_BOUNDS = (-100.0, 200.0)


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


def snr_db(references: Sequence[RawOutputs], outputs: Sequence[RawOutputs]) -> dict[str, float]:
    """Signal to noise ratio per output over some frames, ``10 log10(sum(r^2) / sum((r - o)^2))`` [dB].

    Outputs whose shape differs (as many rows as boxes) are left out. Within ``SNR_BOUNDS``.
    """
    ratios = {}
    for name in references[0]:
        pairs = [(right[name], given[name]) for right, given in zip(references, outputs, strict=True)]
        if any(right.shape != given.shape for right, given in pairs):
            continue
        signal = sum(float(np.sum(np.square(right, dtype=np.float64))) for right, _ in pairs)
        noise = sum(float(np.sum(np.square(right - given, dtype=np.float64))) for right, given in pairs)
        low, high = SNR_BOUNDS
        if not np.isfinite(noise):
            ratios[name] = low
        elif noise == 0.0 or signal == 0.0:
            ratios[name] = high if noise == 0.0 else low
        else:
            ratios[name] = float(np.clip(10.0 * np.log10(signal / noise), low, high))
    return ratios
