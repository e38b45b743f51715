"""Which query answers for which object: the assignment of least cost, one to one (H. W. Kuhn, 1955)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from exporter.training_only import short_name
from shared.errors import ConfigError
from shared.geometry import box_footprints
from shared.rectangles import intersection_areas

# AWML's, by what they weigh.
_COSTS = {"cls_cost": "FocalLossCost", "reg_cost": "BBoxBEVL1Cost", "iou_cost": "IoU3DCost"}


@dataclass(frozen=True)
class Costs:
    """What a wrong assignment costs, AWML's HungarianAssigner3D.

    Attributes:
        classification: from scores and labels to the cost of each pair, mmdet's focal cost.
        center: weight of the distance of the centers along x and y, in sides of the map.
        overlap: weight of the boxes' intersection over union.
    """

    classification: Callable[[Any, Any], Tensor]
    center: float
    overlap: float

    @staticmethod
    def from_config(section: Mapping[str, Any], where: str) -> Costs:
        """The costs of ``train_cfg.pts.assigner``.

        Raises:
            ConfigError: another assigner or other costs than AWML's.
        """
        from mmdet.registry import TASK_UTILS

        types = {"the assigner": ("HungarianAssigner3D", section), **{
            name: (known, section.get(name) or {}) for name, known in _COSTS.items()
        }}  # fmt: skip
        for name, (known, part) in types.items():
            actual = short_name(part.get("type"))
            if actual != known:
                raise ConfigError(
                    f"train_cfg.pts.assigner: {name} is {actual}; {known} can be trained here", where=where
                )
        return Costs(
            TASK_UTILS.build({**section["cls_cost"], "type": _COSTS["cls_cost"]}),
            float(section["reg_cost"]["weight"]),
            float(section["iou_cost"]["weight"]),
        )


def assigned(
    logits: Tensor, boxes: Tensor, truth: Tensor, labels: Tensor, costs: Costs, point_cloud_range: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Queries and the objects that they answer for, (K,) int64 each; K is the lesser of both numbers.

    Args:
        logits: (Q, classes) float32.
        boxes: (Q, 7 or more) float32 that the queries say: x, y, z of the bottom face's center, l, w, h [m], yaw [rad].
        truth: (M, 7 or more) float32 objects, alike.
        labels: (M,) int64 of the objects.
        costs: of the training config.
        point_cloud_range: x, y, z at least and at most [m].
    """
    from mmengine.structures import InstanceData

    by_class = costs.classification(InstanceData(scores=logits), InstanceData(labels=labels))
    low, high = boxes.new_tensor(point_cloud_range).view(2, 3)[:, :2]
    sides = (high - low).tolist()
    distances = sum((boxes[:, None, axis] - truth[None, :, axis]).abs() / side for axis, side in enumerate(sides))
    overlaps = overlaps_3d(boxes.cpu().numpy(), truth.cpu().numpy())
    total = (by_class + costs.center * distances).cpu().numpy() - costs.overlap * overlaps
    # An early prediction may overflow; the solver takes numbers alone.
    queries, objects = linear_sum_assignment(np.nan_to_num(total, nan=1e6, posinf=1e6, neginf=-1e6))
    return torch.from_numpy(queries).to(boxes.device), torch.from_numpy(objects).to(boxes.device)


def overlaps_3d(boxes: np.ndarray[Any, Any], others: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(Q, M) intersection over union of upright boxes: x, y, z of the bottom face's center, l, w, h, yaw."""
    boxes, others = boxes[:, :7].astype(np.float64), others[:, :7].astype(np.float64)
    overlaps = np.zeros((len(boxes), len(others)))
    distances = np.linalg.norm(boxes[:, None, :2] - others[None, :, :2], axis=2)
    reach = np.linalg.norm(boxes[:, 3:5], axis=1)[:, None] + np.linalg.norm(others[:, 3:5], axis=1)
    rows, columns = np.nonzero(distances < reach / 2)
    if not len(rows):
        return overlaps
    first, second = boxes[rows], others[columns]
    areas = intersection_areas(*(box_footprints(b[:, :3], b[:, 3:6], b[:, 6]) for b in (first, second)))
    top = np.minimum(first[:, 2] + first[:, 5], second[:, 2] + second[:, 5])
    common = areas * np.maximum(top - np.maximum(first[:, 2], second[:, 2]), 0.0)
    volumes = first[:, 3:6].prod(axis=1) + second[:, 3:6].prod(axis=1)
    overlaps[rows, columns] = common / np.maximum(volumes - common, 1e-12)
    return overlaps
