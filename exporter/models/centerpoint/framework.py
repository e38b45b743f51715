"""mmdet3d's CenterPoint run as a whole, and what flows between its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from exporter.lidar.framework import empty_map, our_boxes, preprocessed, voxels_to_trace_with
from exporter.models.centerpoint.outputs import ordered_outputs, output_names, trained_on_y_axis
from exporter.recorded_calls import recorded_calls
from shared.runs import RawOutputs
from shared.tasks.detection3d import Boxes3D


def answer(model: Any, model_input: Tensor) -> tuple[RawOutputs, Boxes3D, dict[str, int]]:
    """What mmdet3d answers: its own data preprocessor, model and head prediction, nothing of ours between.

    Args:
        model: mmdet3d's CenterPoint.
        model_input: (N, columns) float32 points.

    Returns:
        raw: the head's maps by output name, (1, C, H, W) each, with dim as l, w, h and rot as [sin, cos] whatever the
        components are exported with; boxes: its final boxes, with gravity centers; counters: points and voxels.
    """
    head = model.pts_bbox_head
    with torch.no_grad(), recorded_calls(head) as maps:
        data = preprocessed(model, model_input)
        if len(data["inputs"]["voxels"]["voxels"]):
            result = model.predict(data["inputs"], data["data_samples"])[0].pred_instances_3d
        else:
            result = head.predict(empty_map(model, model_input), data["data_samples"])[0]
    tasks = [task[0] for task in maps[-1].output]
    names = [name for task in output_names(model) for name in task.values()]
    # The conversion is its own inverse: this undoes what the network itself was trained to do.
    values = ordered_outputs(tasks, trained_on_y_axis(model))
    raw = {name: value.cpu().numpy() for name, value in zip(names, values, strict=True)}
    counters = {"points": len(model_input), "voxels": len(data["inputs"]["voxels"]["voxels"])}
    return raw, our_boxes(result), counters


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
        voxels = voxels_to_trace_with(model, points)
        features = model.pts_voxel_encoder(voxels["voxels"], voxels["num_points"], voxels["coors"])
        model.pts_middle_encoder(features, voxels["coors"], 1)
    return Intermediate(encoder[-1].inputs[0], scatter[-1].output, voxels["coors"][:, 1:])
