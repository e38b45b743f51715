"""mmdet3d's TransFusion between its parts: voxels, what is said of each query, boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from awml_deploy_transfusion.exporter_model.framework import answer
from awml_deploy_transfusion.names import COMPONENT, COORS, NUM_POINTS, VOXELS
from exporter.lidar.framework import voxels_to_trace_with
from exporter.traces import State
from shared.tasks.detection3d import Boxes3D

STEPS = ("read", "pack", COMPONENT, "circle_nms")


def states(model: Any, model_input: Any, parameters: Mapping[str, Any]) -> tuple[dict[str, State], Boxes3D]:  # noqa: ARG001
    """See `exporter.traces.Tracer`.

    Raises:
        ExportError: no point of the sample lies in range.
    """
    voxels = voxels_to_trace_with(model, model_input)
    raw, boxes, _ = answer(model, model_input)
    after: dict[str, State] = {
        "read": {"points": model_input.cpu().numpy()},
        "pack": {
            VOXELS: voxels["voxels"].cpu().numpy(),
            NUM_POINTS: voxels["num_points"].cpu().numpy().astype(np.int32),
            COORS: voxels["coors"].cpu().numpy().astype(np.int32),
        },
        COMPONENT: dict(raw),
        "circle_nms": {name: getattr(boxes, name) for name in Boxes3D.columns()},
    }
    return after, boxes
