"""TransFusion run as a whole, by mmdet3d: what every backend is compared with."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from awml_deploy_transfusion.names import BOXES, ROTATIONS, SCORES
from exporter.recorded_calls import recorded_calls
from shared.data import PointLoading, Sample, load_points
from shared.errors import ExportError
from shared.lazy import lazy_import
from shared.runs import RawOutputs
from shared.tasks.detection3d import Boxes3D

# Imports mmcv's operators: not before `build_model` has provided them.
mmdet3d_structures = lazy_import("mmdet3d.structures")


def load_input(sample: Sample, parameters: Mapping[str, Any]) -> Tensor:
    """(N, columns) float32 points of a sample, as training loads them.

    Raises:
        InputError: a point file is missing or broken.
    """
    loading = PointLoading(**{**parameters["points"], "use_dim": tuple(parameters["points"]["use_dim"])})
    return torch.from_numpy(load_points(sample, loading))


def voxels_of(model: Any, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N, M, C) float32 voxels, (N,) int32 points of each and (N, 4) int32 cells, made by mmdet3d.

    Raises:
        ExportError: no point of the sample lies in range.
    """
    voxels = _preprocessed(model, points)["inputs"]["voxels"]
    if not len(voxels["voxels"]):
        raise ExportError(
            "no point of the sample lies in the model's range, so there is nothing to trace with",
            where="data.sample_idx",
            hint="choose another sample",
        )
    return voxels["voxels"], voxels["num_points"].int(), voxels["coors"].int()


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
        data = _preprocessed(model, points)
        if len(data["inputs"]["voxels"]["voxels"]):
            result = model.predict(data["inputs"], data["data_samples"])[0].pred_instances_3d
        else:
            # mmdet3d takes the batch size from the last voxel and fails without one: an empty frame is an empty map.
            scatter = model.pts_middle_encoder
            empty = points.new_zeros(1, scatter.in_channels, scatter.ny, scatter.nx)
            features = model.pts_neck(model.pts_backbone(empty))
            result = head.predict(features, [sample.metainfo for sample in data["data_samples"]])[0]
    said = {name: values[..., -head.num_proposals :] for name, values in calls[-1].output[0][0].items()}
    one_hot = torch.nn.functional.one_hot(head.query_labels, head.num_classes).transpose(1, 2)
    raw = {
        SCORES: said["heatmap"].sigmoid() * said["query_heatmap_score"] * one_hot,
        BOXES: torch.cat([said[name] for name in ("center", "height", "dim", "vel") if name in said], dim=1),
        ROTATIONS: said["rot"],
    }
    counters = {"points": len(points), "voxels": len(data["inputs"]["voxels"]["voxels"])}
    return {name: value.cpu().numpy() for name, value in raw.items()}, _boxes(result), counters


def _preprocessed(model: Any, points: Tensor) -> dict[str, Any]:
    sample = mmdet3d_structures.Det3DDataSample(metainfo={"box_type_3d": mmdet3d_structures.LiDARInstance3DBoxes})
    with warnings.catch_warnings():
        # mmdet3d copies a tensor in a way that PyTorch advises against, at every call.
        warnings.simplefilter("ignore", UserWarning)
        data: dict[str, Any] = model.data_preprocessor(
            {"inputs": {"points": [points]}, "data_samples": [sample]}, training=False
        )
    return data


def _boxes(result: Any) -> Boxes3D:
    """mmdet3d's boxes (center of the bottom face) as ours (center of gravity)."""
    boxes = result.bboxes_3d
    values = boxes.tensor.cpu().numpy()
    return Boxes3D.build(
        centers=boxes.gravity_center.cpu().numpy(),
        sizes=values[:, 3:6],
        yaws=values[:, 6],
        velocities=values[:, 7:9] if values.shape[1] > 8 else None,
        labels=result.labels_3d.cpu().numpy(),
        scores=result.scores_3d.cpu().numpy(),
        num_points=np.zeros(len(values), np.int64),
    )
