"""COCO's metric of boxes, by faster-coco-eval.

AP is the mean over IoU thresholds 0.50 to 0.95 and 101 recalls; the 100 best detections of an image count. Ignored
boxes are crowds: a detection inside one counts as neither right nor wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.data.types import ImageLabels
from shared.lazy import lazy_import
from shared.tasks.detection2d import Boxes2D

faster_coco_eval = lazy_import("faster_coco_eval", install="make setup")

#: COCO's own numbers, in the order of its summary.
SUMMARY = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def evaluate(predictions: Sequence[Boxes2D], truths: Sequence[ImageLabels], classes: Sequence[str]) -> dict[str, Any]:
    """COCO's numbers.

    Args:
        predictions: per image.
        truths: per image.
        classes: class names by label.

    Returns:
        JSON: ``summary`` (`SUMMARY` by name) and ``classes`` (AP, AP50, AP75 by class); None for a missing value.
    """
    truth = faster_coco_eval.COCO(_dataset(truths, classes))
    rows = _results(predictions)
    # COCO.loadRes does not take an empty list.
    results = truth.loadRes(rows) if rows else faster_coco_eval.COCO(_dataset([], classes))
    evaluation = faster_coco_eval.COCOeval_faster(truth, results, "bbox", print_function=lambda *_: None)
    evaluation.params.imgIds = list(range(len(truths)))
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    precision = evaluation.eval["precision"]  # thresholds, recalls, classes, sizes, numbers of detections
    return {
        "summary": {name: _known(value) for name, value in zip(SUMMARY, evaluation.stats[: len(SUMMARY)], strict=True)},
        "classes": {
            name: {
                "AP": _mean(precision[:, :, label, 0, -1]),
                "AP50": _mean(precision[0, :, label, 0, -1]),
                "AP75": _mean(precision[5, :, label, 0, -1]),
            }
            for label, name in enumerate(classes)
        },
    }


def _dataset(truths: Sequence[ImageLabels], classes: Sequence[str]) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for image, truth in enumerate(truths):
        for row, (left, top, right, bottom) in enumerate(truth.boxes.corners.astype(np.float64).tolist()):
            annotations.append(
                {
                    "id": len(annotations) + 1,  # 0 would count as unmatched
                    "image_id": image,
                    "category_id": int(truth.boxes.labels[row]),
                    "bbox": [left, top, right - left, bottom - top],
                    "area": float(truth.areas[row]),
                    "iscrowd": int(truth.ignored[row]),
                }
            )
    return {
        "images": [{"id": image} for image in range(len(truths))],
        "annotations": annotations,
        "categories": [{"id": label, "name": name} for label, name in enumerate(classes)],
    }


def _results(predictions: Sequence[Boxes2D]) -> list[dict[str, Any]]:
    return [
        {
            "image_id": image,
            "category_id": int(boxes.labels[row]),
            "bbox": [left, top, right - left, bottom - top],
            "score": float(boxes.scores[row]),
        }
        for image, boxes in enumerate(predictions)
        for row, (left, top, right, bottom) in enumerate(boxes.corners.astype(np.float64).tolist())
    ]


def _known(value: float) -> float | None:
    """COCO's -1 stands for no value."""
    return float(value) if value > -1 else None


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    known = values[values > -1]
    return float(known.mean()) if known.size else None
