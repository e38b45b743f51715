"""mmdet3d run on lidar frames: points, its own data preprocessor, its boxes as ours."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shared.data import PointLoading, Sample, load_points
from shared.errors import ExportError
from shared.lazy import lazy_import
from shared.tasks.detection3d import Boxes3D

# Imports mmcv's operators: not before `build_model` has provided them.
mmdet3d_structures = lazy_import("mmdet3d.structures")


def load_input(sample: Sample, parameters: Mapping[str, Any]) -> Tensor:
    """Points of a sample, loaded as the model expects them: (N, columns) float32.

    Raises:
        InputError: a point file is missing or broken.
    """
    loading = PointLoading(**{**parameters["points"], "use_dim": tuple(parameters["points"]["use_dim"])})
    return torch.from_numpy(load_points(sample, loading))


def preprocessed(model: Any, points: Tensor) -> dict[str, Any]:
    """What the model's own data preprocessor makes of a frame: voxels in ``inputs``, and ``data_samples``.

    Args:
        model: a detector of mmdet3d.
        points: (N, columns) float32.
    """
    sample = mmdet3d_structures.Det3DDataSample(metainfo={"box_type_3d": mmdet3d_structures.LiDARInstance3DBoxes})
    with warnings.catch_warnings():
        # mmdet3d copies a tensor in a way that PyTorch advises against, at every call.
        warnings.simplefilter("ignore", UserWarning)
        data: dict[str, Any] = model.data_preprocessor(
            {"inputs": {"points": [points]}, "data_samples": [sample]}, training=False
        )
    return data


def voxels_to_trace_with(model: Any, points: Tensor) -> dict[str, Tensor]:
    """``voxels`` (V, M, columns), ``num_points`` (V,) and ``coors`` (V, 4) of a frame that has any.

    Raises:
        ExportError: no point of the sample lies in range.
    """
    voxels: dict[str, Tensor] = preprocessed(model, points)["inputs"]["voxels"]
    if not len(voxels["voxels"]):
        raise ExportError(
            "no point of the sample lies in the model's range, so there is nothing to trace with",
            where="data.sample_idx",
            hint="choose another sample",
        )
    return voxels


def empty_map(model: Any, points: Tensor) -> Any:
    """The features of a frame without voxels: mmdet3d takes the batch size from the last voxel, and fails without."""
    scatter = model.pts_middle_encoder
    return model.pts_neck(model.pts_backbone(points.new_zeros(1, scatter.in_channels, scatter.ny, scatter.nx)))


def our_boxes(result: Any) -> Boxes3D:
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
