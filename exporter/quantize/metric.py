"""How good a PyTorch model is on some frames of a data set: its task metric, and how far its outputs are from others.

The metric is the evaluator's, in points (0 to 100): 3D detection nuScenes' mAP on center distance within 121 m, 2D
detection Pascal VOC's mAP at IoU 0.5 as mmdet computes it, classification the accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from exporter.center_distance import evaluate
from exporter.mmcv_ops import provide_mmcv_ops
from shared.data import Dataset
from shared.errors import InputError
from shared.lazy import lazy_import
from shared.runs import RawOutputs
from shared.tasks.detection3d import Boxes3D

mean_ap = lazy_import("mmdet.evaluation.functional")

#: Range of the evaluator's headline [m].
MAX_RANGE = 121.0
IOU_THRESHOLD = 0.5
#: Bounds of signal to noise ratios [dB]: equal outputs, and outputs that are not finite.
SNR_BOUNDS = (-100.0, 200.0)


@dataclass(frozen=True)
class TaskMetric:
    """A metric on chosen frames.

    Attributes:
        name: ``mAP`` or ``accuracy``.
        positions: of the frames in their data set.
        score: points (0 to 100) of the predictions on these frames, in their order.
    """

    name: str
    positions: tuple[int, ...]
    score: Callable[[Sequence[Any]], float]


def open_metric(task: str, dataset: Dataset[Any], classes: Sequence[str], count: int) -> TaskMetric:
    """The metric of a task on ``count`` frames, spread evenly over a data set (all of them where it has fewer).

    Args:
        task: detection3d, detection2d or classification.
        dataset: the frames and their labels.
        classes: names that the model's labels index.
        count: how many frames, at least 1.

    Raises:
        InputError: no frame has labels.
    """
    spread = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    samples = {int(position): dataset.sample(int(position)) for position in spread}
    key = {"detection3d": "ground_truth", "detection2d": "labels", "classification": "label"}[task]
    labeled = {position: sample for position, sample in samples.items() if getattr(sample, key) is not None}
    if not labeled:
        raise InputError(
            f"none of {len(samples)} frames has labels, and the {task} metric needs them",
            where=dataset.name,
            hint="name a labeled data set, for example --set data.info_file=...",
        )
    chosen = list(labeled.values())
    to_model = np.array([_position(name, classes) for name in dataset.classes] + [-1], np.int64)
    if task == "detection3d":
        return TaskMetric("mAP", tuple(labeled), _detection3d(chosen, to_model, classes))
    if task == "detection2d":
        return TaskMetric("mAP", tuple(labeled), _detection2d(chosen, to_model, classes))
    return TaskMetric("accuracy", tuple(labeled), _classification(chosen, to_model))


def _position(name: str, classes: Sequence[str]) -> int:
    return classes.index(name) if name in classes else -1


def _detection3d(
    samples: Sequence[Any], to_model: npt.NDArray[np.int64], classes: Sequence[str]
) -> Callable[[Sequence[Boxes3D]], float]:
    truths = []
    for sample in samples:
        boxes = replace(sample.ground_truth, labels=to_model[sample.ground_truth.labels])
        # A box without a point could not have been seen.
        truths.append(_on_vehicle(boxes.select((boxes.labels >= 0) & (boxes.num_points != 0)), sample.lidar2ego))

    def score(predictions: Sequence[Boxes3D]) -> float:
        placed = [_on_vehicle(boxes, sample.lidar2ego) for boxes, sample in zip(predictions, samples, strict=True)]
        return 100.0 * evaluate(placed, truths, classes, MAX_RANGE)["mAP"]

    return score


def _on_vehicle(boxes: Boxes3D, lidar2ego: npt.NDArray[np.float64]) -> Boxes3D:
    """Boxes with their centers in the vehicle's frame; mAP looks at nothing else."""
    if np.array_equal(lidar2ego, np.eye(4)):
        return boxes
    centers = boxes.centers.astype(np.float64) @ lidar2ego[:3, :3].T + lidar2ego[:3, 3]
    return replace(boxes, centers=centers.astype(np.float32))


def _detection2d(
    samples: Sequence[Any], to_model: npt.NDArray[np.int64], classes: Sequence[str]
) -> Callable[[Sequence[Any]], float]:
    provide_mmcv_ops()  # mmdet's metric imports them
    truths = []
    for sample in samples:
        labels, corners = to_model[sample.labels.boxes.labels], sample.labels.boxes.corners
        wanted, ignored = (labels >= 0) & ~sample.labels.ignored, (labels >= 0) & sample.labels.ignored
        truths.append(
            {
                "bboxes": corners[wanted], "labels": labels[wanted],
                "bboxes_ignore": corners[ignored], "labels_ignore": labels[ignored],
            }
        )  # fmt: skip

    def score(predictions: Sequence[Any]) -> float:
        rows = [
            [
                np.column_stack([boxes.corners, boxes.scores])[boxes.labels == label].reshape(-1, 5)
                for label in range(len(classes))
            ]
            for boxes in predictions
        ]
        mean, _ = mean_ap.eval_map(
            rows, truths, iou_thr=IOU_THRESHOLD, eval_mode="11points", use_legacy_coordinate=True, logger="silent",
            nproc=1,
        )  # fmt: skip
        return 100.0 * float(mean)

    return score


def _classification(samples: Sequence[Any], to_model: npt.NDArray[np.int64]) -> Callable[[Sequence[Any]], float]:
    truths = to_model[[sample.label for sample in samples]]

    def score(predictions: Sequence[Any]) -> float:
        decided = np.array([int(scores.logits[0].argmax()) for scores in predictions])
        return 100.0 * float(np.mean(decided == truths))

    return score


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
