"""The one component of a TransFusion, with real data to trace and check it with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from awml_deploy_transfusion.exporter_model.coordinates import KEEP_FP32
from awml_deploy_transfusion.exporter_model.network import Network
from awml_deploy_transfusion.names import COMPONENT, INPUTS, OUTPUTS, VOXELS_AXIS
from exporter.component import Component, Sizes
from shared.spec import AxisSizes, TensorSpec

# Programs keep the inputs that they were traced with.
_TRACED_VOXELS = 256
_CHECKED_VOXELS = 20_000


def network_component(model: Any, voxels: Tensor, num_points: Tensor, coors: Tensor) -> Component:
    """The network.

    Args:
        model: a TransFusion.
        voxels: (N, M, C) float32 of a sample.
        num_points: (N,) int32.
        coors: (N, 4) int32.
    """
    found, slots, features = voxels.shape
    head, largest = model.pts_bbox_head, int(model.data_preprocessor.voxel_layer.max_voxels[1])
    said = head.prediction_heads[-1].heads
    numbers = sum(int(said[name][0]) for name in ("center", "height", "dim", "vel") if name in said)

    def inputs_of(sizes: Sizes) -> tuple[Tensor, ...]:
        rows = torch.arange(sizes[VOXELS_AXIS]) % found
        return voxels[rows], num_points[rows], coors[rows]

    of_inputs: tuple[tuple[str, list[int]], ...] = (("float32", [slots, features]), ("int32", []), ("int32", [4]))
    most = min(found, _CHECKED_VOXELS)
    return Component(
        name=COMPONENT,
        module=Network(model, model.decoration).eval(),
        inputs=tuple(
            TensorSpec(name=name, dtype=dtype, shape=[VOXELS_AXIS, *shape])
            for name, (dtype, shape) in zip(INPUTS, of_inputs, strict=True)
        ),
        outputs=tuple(
            TensorSpec(name=name, dtype="float32", shape=[1, channels, head.num_proposals])
            for name, channels in zip(OUTPUTS, (head.num_classes, numbers, 2), strict=True)
        ),
        inputs_of=inputs_of,
        trace_sizes={VOXELS_AXIS: max(2, min(found, _TRACED_VOXELS))},
        check_sizes=({VOXELS_AXIS: most}, {VOXELS_AXIS: max(2, most // 3)}),
        deployed_sizes={VOXELS_AXIS: largest},
        # AWML's own profile is tuned for half of the voxels that a configuration allows for.
        varying_axes={VOXELS_AXIS: AxisSizes(min=1, opt=max(1, largest // 2), max=largest, counter="voxels")},
        keep_fp32=KEEP_FP32,
        listed_along=2,
    )
