"""TransFusion run as a whole, by mmdet3d: what every backend is compared with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from awml_deploy_transfusion.names import BOXES, ROTATIONS, SCORES
from exporter.lidar.framework import empty_map, our_boxes, preprocessed
from exporter.recorded_calls import recorded_calls
from shared.runs import RawOutputs
from shared.tasks.detection3d import Boxes3D


def answer(model: Any, points: Tensor) -> tuple[RawOutputs, Boxes3D, dict[str, int]]:
    """What the framework answers: its own data preprocessor, model and decoding.

    Args:
        model: a TransFusion.
        points: (N, columns) float32.

    Returns:
        raw: scores, boxes and rotations as the exported network has them; boxes with their centers of gravity;
        counters: points and voxels.
    """
    head = model.pts_bbox_head
    with torch.no_grad(), recorded_calls(head) as calls:
        data = preprocessed(model, points)
        if len(data["inputs"]["voxels"]["voxels"]):
            result = model.predict(data["inputs"], data["data_samples"])[0].pred_instances_3d
        else:
            result = head.predict(empty_map(model, points), [sample.metainfo for sample in data["data_samples"]])[0]
    said = {name: values[..., -head.num_proposals :] for name, values in calls[-1].output[0][0].items()}
    raw = {
        SCORES: head.scores(said),
        BOXES: torch.cat([said[name] for name in ("center", "height", "dim", "vel") if name in said], dim=1),
        ROTATIONS: said["rot"],
    }
    counters = {"points": len(points), "voxels": len(data["inputs"]["voxels"]["voxels"])}
    return {name: value.cpu().numpy() for name, value in raw.items()}, our_boxes(result), counters
