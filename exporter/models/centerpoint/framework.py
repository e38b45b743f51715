"""mmdet3d's CenterPoint run as a whole, and what flows between its parts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from exporter.models.centerpoint.outputs import ordered_outputs, output_names, trained_on_y_axis
from exporter.recorded_calls import recorded_calls
from shared.data import PointLoading, Sample, load_points
from shared.errors import ExportError
from shared.lazy import lazy_import
from shared.runs import RawOutputs
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


def answer(model: Any, model_input: Tensor) -> tuple[RawOutputs, Boxes3D, dict[str, int]]:
    """What mmdet3d answers: its own data preprocessor, model and head prediction, nothing of ours between.

    Args:
        model: mmdet3d's CenterPoint.
        model_input: (N, columns) float32 points.

    Returns:
        raw: the head's maps by output name, (1, C, H, W) each, with dim as l, w, h and rot as [sin, cos] whatever the
        components are exported with; boxes: its final boxes, with gravity centers; counters: points and voxels.
    """
    with torch.no_grad(), warnings.catch_warnings(), recorded_calls(model.pts_bbox_head) as maps:
        # mmdet3d copies a tensor in a way that PyTorch advises against, at every call.
        warnings.simplefilter("ignore", UserWarning)
        data = model.data_preprocessor(
            {"inputs": {"points": [model_input]}, "data_samples": [_data_sample()]}, training=False
        )
        if len(data["inputs"]["voxels"]["voxels"]):
            result = model.predict(data["inputs"], data["data_samples"])[0].pred_instances_3d
        else:
            # mmdet3d takes the batch size from the last voxel and fails without one: an empty frame is an empty map.
            scatter = model.pts_middle_encoder
            empty = model_input.new_zeros(1, scatter.in_channels, scatter.ny, scatter.nx)
            features = model.pts_neck(model.pts_backbone(empty))
            result = model.pts_bbox_head.predict(features, data["data_samples"])[0]
    tasks = [task[0] for task in maps[-1].output]
    names = [name for task in output_names(model) for name in task.values()]
    # The conversion is its own inverse: this undoes what the network itself was trained to do.
    values = ordered_outputs(tasks, trained_on_y_axis(model))
    raw = {name: value.cpu().numpy() for name, value in zip(names, values, strict=True)}
    counters = {"points": len(model_input), "voxels": len(data["inputs"]["voxels"]["voxels"])}
    return raw, _boxes(result), counters


def _boxes(result: Any) -> Boxes3D:
    """mmdet3d's boxes (center of the bottom face) as ours (gravity center)."""
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


def _data_sample() -> Any:
    return mmdet3d_structures.Det3DDataSample(metainfo={"box_type_3d": mmdet3d_structures.LiDARInstance3DBoxes})


@dataclass(frozen=True)
class Intermediate:
    """What flows between the framework's parts for one sample.

    Attributes:
        decorated: (V, M, F) decorated points.
        spatial: (1, C, H, W) map of pillar features.
        coordinates: (V, 3) cell of each pillar along z, y, x.
    """

    decorated: Tensor
    spatial: Tensor
    coordinates: Tensor


def run_parts(model: Any, points: Tensor) -> Intermediate:
    """Run the framework on a sample and note what its encoder's layers and its backbone are given.

    Raises:
        ExportError: no point of the sample lies in range.
    """
    with (
        torch.no_grad(),
        recorded_calls(model.pts_voxel_encoder.pfn_layers[0]) as encoder,
        recorded_calls(model.pts_middle_encoder) as scatter,
    ):
        data = model.data_preprocessor(
            {"inputs": {"points": [points]}, "data_samples": [_data_sample()]}, training=False
        )
        voxels = data["inputs"]["voxels"]
        if not len(voxels["voxels"]):
            raise ExportError(
                "no point of the sample lies in the model's range, so there is nothing to trace with",
                where="data.sample_idx",
                hint="choose another sample",
            )
        features = model.pts_voxel_encoder(voxels["voxels"], voxels["num_points"], voxels["coors"])
        model.pts_middle_encoder(features, voxels["coors"], 1)
    return Intermediate(encoder[-1].inputs[0], scatter[-1].output, voxels["coors"][:, 1:])
