"""The layers of a pillar encoder as they are exported: batch norms folded into the Linears, and no transposes."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from exporter.quantize.frozen import frozen_layers
from exporter.quantize.fusion import FoldedBatchNorm, fold
from shared.lazy import lazy_import

# Imports mmcv's operators: not before `build_model` has provided them.
mmdet3d_utils = lazy_import("mmdet3d.models.voxel_encoders.utils")


class PillarLayer(nn.Module):
    """What mmdet3d's PFNLayer computes once its batch norm is folded into its Linear.

    mmdet3d moves channels to where BatchNorm1d wants them, and back. In an engine, these copies and the batch norm take
    longer than the product; and ONNX Runtime on CUDA has no batch norm of more than 65,535 rows.

    Args:
        linear: with the batch norm folded in; in float or quantized.
        last: no layer follows, to which the points would go on beside the pillar's maximum.
    """

    def __init__(self, linear: nn.Module, last: bool) -> None:
        super().__init__()
        self.linear = linear
        self.last = last

    def forward(self, points: Tensor) -> Tensor:
        """(N, M, F) float32 points of N pillars to (N, 1, C), or to (N, M, 2 C) for the next layer."""
        features = torch.relu(self.linear(points))
        largest = features.amax(dim=1, keepdim=True)
        return largest if self.last else torch.cat([features, largest.expand_as(features)], dim=2)


def folded(layers: nn.ModuleList) -> nn.ModuleList:
    """Copies of a pillar encoder's layers in evaluation mode, batch norms folded into the Linears.

    A layer stays as it is where the norm is no BatchNorm1d with statistics, or where an int8 Linear has weights without
    it: its scales belong to these weights.

    Args:
        layers: mmdet3d's PFNLayers (or others, which stay as they are).
    """
    copies = copy.deepcopy(layers).eval()
    fold(copies, [(f"{i}.linear", f"{i}.norm") for i, layer in enumerate(copies) if _can_fold(layer)])
    return nn.ModuleList(
        PillarLayer(layer.linear, layer.last_vfe) if _is_known(layer) and _is_folded(layer) else layer
        for layer in cast(Any, copies)
    )


def _is_known(layer: Any) -> bool:
    return type(layer) is mmdet3d_utils.PFNLayer and layer.mode == "max"


def _is_folded(layer: Any) -> bool:
    return isinstance(layer.norm, FoldedBatchNorm)


def _can_fold(layer: Any) -> bool:
    return (
        _is_known(layer)
        and isinstance(layer.norm, nn.BatchNorm1d)
        and layer.norm.running_mean is not None
        and not frozen_layers(layer)
    )
