"""What `exporter inspect` needs to know of TransFusions, see `exporter.inspection`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from awml_deploy_transfusion.exporter_model.components import network_component
from exporter.component import Component

MODEL_TYPES = ("TransFusion",)
AUTOWARE_OPTIONS: Mapping[str, Any] = {}


def components(model: Any, parameters: Mapping[str, Any], options: Any) -> list[Component]:  # noqa: ARG001
    """See `exporter.inspection.Inspectable`."""
    voxels = torch.zeros(2, parameters["max_points_per_voxel"], len(parameters["points"]["use_dim"]))
    counts = torch.ones(2, dtype=torch.int32)
    return [network_component(model, voxels, counts, torch.zeros(2, 4, dtype=torch.int32))]
