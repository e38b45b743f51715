"""What `exporter inspect` needs to know of CenterPoints, see `exporter.inspection`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from exporter.component import Component
from exporter.models.centerpoint.components import encoder_component, head_component
from exporter.models.centerpoint.options import Options

MODEL_TYPES = ("CenterPoint", "CenterPointONNX")
AUTOWARE_OPTIONS = {"rot_y_axis_reference": True}


def components(model: Any, parameters: Mapping[str, Any], options: Options) -> list[Component]:
    """See `exporter.inspection.Inspectable`."""
    columns, rows, _ = parameters["grid_size"]
    features = model.pts_voxel_encoder.pfn_layers[0].linear.in_features
    nothing = torch.zeros(1)
    decorated = nothing.expand(2, parameters["max_points_per_voxel"], features)
    spatial = nothing.expand(1, parameters["encoder_channels"], rows, columns)
    return [encoder_component(model, decorated), head_component(model, spatial, options)]
