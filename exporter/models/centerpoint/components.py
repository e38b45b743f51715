"""The two components of a CenterPoint, with real data to trace and check them with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from exporter.component import Component, Sizes
from exporter.lidar.pillar_layers import folded
from exporter.models.centerpoint.options import Options
from exporter.models.centerpoint.outputs import ordered_outputs, output_channels, output_names, trained_on_y_axis
from exporter.models.centerpoint.parameters import out_size_factors
from shared.spec import AxisSizes, TensorSpec

ENCODER = "pts_voxel_encoder"
HEAD = "pts_backbone_neck_head"

# Sizes to trace and check with: enough for every stride, little enough for a CPU (and for programs, which keep the
# inputs that they were traced with). Multiples of the alignment pass through all strides of the backbones in use (16 at
# most) without remainder.
_LARGEST_CHECK = 256
_LARGEST_TRACE = 64
_ALIGNMENT = 32
_TRACED_PILLARS = 256
_CHECKED_PILLARS = 20_000


class Encoder(nn.Module):
    """The layers of a pillar encoder, without the decoration: (N, M, F) to (N, 1, C)."""

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, input_features: Tensor) -> Tensor:
        """Decorated points of N pillars, unused slots zero, to the pillars' features."""
        features = input_features
        for layer in self.layers:
            features = layer(features)
        return features


class BackboneNeckHead(nn.Module):
    """Backbone, neck and head: (B, C, H, W) to the raw maps of every task, in a fixed order.

    Args:
        model: mmdet3d's CenterPoint.
        to_y_axis: see `to_y_axis_reference`.
    """

    def __init__(self, model: Any, to_y_axis: bool) -> None:
        super().__init__()
        self.backbone = model.pts_backbone
        self.neck = model.pts_neck
        self.head = model.pts_bbox_head
        self.to_y_axis = to_y_axis

    def forward(self, spatial_features: Tensor) -> tuple[Tensor, ...]:
        """The map of pillar features to heatmap, reg, height, dim, rot, vel of each task."""
        features = self.neck(self.backbone(spatial_features))
        tasks = self.head.forward_single(features[0])
        return tuple(ordered_outputs(tasks, self.to_y_axis))


def encoder_component(model: Any, decorated: Tensor) -> Component:
    """``pts_voxel_encoder``, with batch norms folded into its Linears; the model itself stays as it is.

    Args:
        model: mmdet3d's CenterPoint.
        decorated: (V, M, F) float32 of a real sample.
    """
    largest = int(model.data_preprocessor.voxel_layer.max_voxels[1])
    pillars, slots, features = decorated.shape
    channels = int(model.pts_middle_encoder.in_channels)

    def inputs_of(sizes: Sizes) -> tuple[Tensor]:
        rows = torch.arange(sizes["num_voxels"]) % pillars
        return (decorated[rows, : sizes["num_max_points"]].contiguous(),)

    most = min(pillars, _CHECKED_PILLARS)
    half = max(2, slots // 2)
    return Component(
        name=ENCODER,
        module=Encoder(folded(model.pts_voxel_encoder.pfn_layers)).eval(),
        inputs=(TensorSpec(name="input_features", dtype="float32", shape=["num_voxels", "num_max_points", features]),),
        outputs=(TensorSpec(name="pillar_features", dtype="float32", shape=["num_voxels", 1, channels]),),
        inputs_of=inputs_of,
        trace_sizes={"num_voxels": max(2, min(pillars, _TRACED_PILLARS)), "num_max_points": slots},
        check_sizes=(
            {"num_voxels": most, "num_max_points": slots},
            {"num_voxels": max(2, most // 3), "num_max_points": half},
            {"num_voxels": 1, "num_max_points": slots},
        ),
        deployed_sizes={"num_voxels": largest, "num_max_points": slots},
        # A frame can be nearly empty. Lidar frames fill about a quarter of the voxels that a configuration allows for
        # (20,000 of 96,000 in AWML's reference profile); `trt_builder suggest-profiles` gives a data set's own figures.
        varying_axes={"num_voxels": AxisSizes(min=1, opt=max(1, largest // 4), max=largest, counter="voxels")},
    )


def head_component(model: Any, spatial: Tensor, options: Options) -> Component:
    """``pts_backbone_neck_head``.

    Args:
        model: mmdet3d's CenterPoint.
        spatial: (1, C, H, W) float32 of a real sample.
        options: see `Options`.
    """
    _, channels, height, width = spatial.shape
    to_y_axis = options.rot_y_axis_reference and not trained_on_y_axis(model)
    y, x = _densest(spatial)

    def inputs_of(sizes: Sizes) -> tuple[Tensor]:
        # A window around the densest part of the map, so that small sizes hold real data, not empty space.
        rows, columns = sizes["height"], sizes["width"]
        top = min(max(0, y - rows // 2), height - rows)
        left = min(max(0, x - columns // 2), width - columns)
        window = spatial[:, :, top : top + rows, left : left + columns]
        return (window.expand(sizes["batch_size"], -1, -1, -1).contiguous(),)

    tall, wide = _window(height, _LARGEST_CHECK), _window(width, _LARGEST_CHECK)
    tasks = zip(output_names(model), output_channels(model), _output_axes(model), strict=True)
    return Component(
        name=HEAD,
        module=BackboneNeckHead(model, to_y_axis).eval(),
        inputs=(
            TensorSpec(name="spatial_features", dtype="float32", shape=["batch_size", channels, "height", "width"]),
        ),
        outputs=tuple(
            TensorSpec(name=names[kind], dtype="float32", shape=["batch_size", count, *axes])
            for names, counts, axes in tasks
            for kind, count in counts.items()
        ),
        inputs_of=inputs_of,
        trace_sizes={
            "batch_size": 2,
            "height": _window(height, _LARGEST_TRACE),
            "width": _window(width, _LARGEST_TRACE),
        },
        check_sizes=(
            {"batch_size": 1, "height": tall, "width": wide},
            {"batch_size": 1, "height": _window(height, tall // 2), "width": wide},
            {"batch_size": 3, "height": _window(height, tall // 2), "width": _window(width, wide // 4)},
        ),
        deployed_sizes={
            "batch_size": 1,
            "height": height,
            "width": width,
            **_output_size(model, height, width),
        },
    )


def _output_axes(model: Any) -> list[tuple[str, str]]:
    """Names of the axes of every task's maps: those of the first, or with the number of the task."""
    factors = out_size_factors(model)
    return [
        ("output_height", "output_width") if factor == factors[0] else (f"output_height_{task}", f"output_width_{task}")
        for task, factor in enumerate(factors)
    ]


def _output_size(model: Any, height: int, width: int) -> dict[str, int]:
    return {
        name: size // factor
        for axes, factor in zip(_output_axes(model), out_size_factors(model), strict=True)
        for name, size in zip(axes, (height, width), strict=True)
    }


def _window(size: int, at_most: int) -> int:
    """The largest usable size of a window on an axis: the whole axis, or a multiple of the alignment."""
    if size <= at_most or size <= _ALIGNMENT:
        return size
    return max(_ALIGNMENT, at_most // _ALIGNMENT * _ALIGNMENT)


def _densest(spatial: Tensor) -> tuple[int, int]:
    """Row and column about which the map holds most pillars."""
    occupied = (spatial[0] != 0).any(dim=0)
    return int(occupied.sum(dim=1).argmax()), int(occupied.sum(dim=0).argmax())
