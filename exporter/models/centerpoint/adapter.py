"""CenterPoint on pillars: two components, the parameters of its pre- and post-processing, and what mmdet3d answers.

``pts_voxel_encoder``: decorated points of each pillar to its features. The decoration itself is outside.
``pts_backbone_neck_head``: the map of pillar features to the head's raw maps (logits; no sigmoid, no exp).
What lies between and around them (voxelization, decoration, scatter, decoding, suppression) is the runtime's.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from exporter.component import Component
from exporter.lidar.framework import load_input
from exporter.models.centerpoint.build import build, classes
from exporter.models.centerpoint.components import encoder_component, head_component
from exporter.models.centerpoint.framework import answer, run_parts
from exporter.models.centerpoint.options import Options
from exporter.models.centerpoint.parameters import parameters
from exporter.options import checked_options

__all__ = ["TASK", "answer", "build", "classes", "components", "load_input", "parameters", "read_options"]

TASK = "detection3d"
read_options = partial(checked_options, Options, model="centerpoint")


def components(model: Any, model_input: Tensor, options: Options) -> list[Component]:
    """The encoder and the rest, with real data of one sample.

    Args:
        model: mmdet3d's CenterPoint.
        model_input: (N, columns) float32 points.
        options: see `Options`.

    Raises:
        ExportError: no point of the sample lies in range.
    """
    intermediate = run_parts(model, model_input)
    return [encoder_component(model, intermediate.decorated), head_component(model, intermediate.spatial, options)]
