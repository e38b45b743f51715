"""mmdet3d's CenterPoint between its parts: decorated points, map of pillar features, maps of the head, boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from exporter.models.centerpoint.components import HEAD
from exporter.models.centerpoint.framework import answer, run_parts
from exporter.traces import State
from shared.tasks.detection3d import Boxes3D

STEPS = ("read", "decorate", "scatter", HEAD, "circle_nms")


def states(model: Any, model_input: Any, parameters: Mapping[str, Any]) -> tuple[dict[str, State], Boxes3D]:
    """See `exporter.traces.Tracer`.

    Raises:
        ExportError: no point of the sample lies in range.
    """
    parts = run_parts(model, model_input)
    raw, boxes, _ = answer(model, model_input)
    maps = {name: np.array(values) for name, values in raw.items()}
    if parameters["rot_y_axis_reference"]:
        # The components answer in Autoware's convention: w, l, h, and (-cos, -sin) for (sin, cos).
        for task in parameters["tasks"]:
            dim, rot = task["outputs"]["dim"], task["outputs"]["rot"]
            maps[dim], maps[rot] = maps[dim][:, [1, 0, 2]], -maps[rot][:, [1, 0]]
    after: dict[str, State] = {
        "read": {"points": model_input.cpu().numpy()},
        "decorate": {
            "input_features": parts.decorated.cpu().numpy(),
            "coordinates": parts.coordinates.cpu().numpy().astype(np.int32),
        },
        "scatter": {"spatial_features": parts.spatial.cpu().numpy()},
        HEAD: maps,
        "circle_nms": {name: getattr(boxes, name) for name in Boxes3D.columns()},
    }
    return after, boxes
