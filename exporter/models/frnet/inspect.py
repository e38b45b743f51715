"""What `exporter inspect` needs to know of FRNets, see `exporter.inspection`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from exporter.component import Component
from exporter.models.frnet.components import network
from exporter.models.frnet.options import Options

MODEL_TYPES = ("FRNet",)
AUTOWARE_OPTIONS = {"form": "scatter"}


def components(model: Any, parameters: Mapping[str, Any], options: Options) -> list[Component]:  # noqa: ARG001
    """See `exporter.inspection.Inspectable`."""
    coors = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 0, 2]])
    inputs = {"points": torch.ones(3, 4), "coors": coors, "voxel_coors": coors, "inverse_map": torch.arange(3)}
    return [network(model, inputs, options)]
