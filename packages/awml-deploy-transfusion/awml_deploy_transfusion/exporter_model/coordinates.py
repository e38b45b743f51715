"""The parts of the network that compute with coordinates, which have nodes of their own in the ONNX file.

From 64 m on, FP16 has steps of 6 cm, and the sum of a pillar's points has steps of a meter; from 128 cells on, steps of
an eighth of a cell. So engines compute these nodes in FP32 (`KEEP_FP32`), whatever the precision of the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

#: Names of the ONNX nodes, after the attributes of `network.Network`; the tracer numbers further uses of a module. What
#: is cast, counts and cells, is exact in FP16. TensorRT 8.6 adds positions in the kernel of the convolution before, and
#: has none that multiplies in FP16 and adds in FP32: so that convolution (64 channels of 100 queries) is among them.
KEEP_FP32 = (r"/decoration/(?!Cast)", r"/boxes(_\d+)?/", r"/prediction_heads\.\d+/center/")


class Decoration(nn.Module):
    """Points as mmdet3d's PillarFeatureNet decorates them, without changing them in place.

    Args:
        encoder: a PillarFeatureNet.
        added: what is added to a point, see `exporter_model.parameters`.
    """

    def __init__(self, encoder: Any, added: Mapping[str, bool]) -> None:
        super().__init__()
        self.added = dict(added)
        self.voxel_size = (encoder.vx, encoder.vy, encoder.vz)
        self.offset = (encoder.x_offset, encoder.y_offset, encoder.z_offset)

    def forward(self, voxels: Tensor, num_points: Tensor, coors: Tensor) -> Tensor:
        """(N, M, F) float32, from the inputs of `network.Network`."""
        places, others = voxels[..., :3], voxels[..., 3:]
        count = num_points.to(voxels.dtype).clamp(min=1).view(-1, 1, 1)
        cells = coors[:, [3, 2, 1]].to(voxels.dtype)
        centers = cells * voxels.new_tensor(self.voxel_size) + voxels.new_tensor(self.offset)
        from_center = places - centers[:, None]
        raw = from_center if self.added["legacy"] and self.added["voxel_center"] else places
        parts = [raw, others]
        if self.added["cluster_center"]:
            parts.append(places - places.sum(dim=1, keepdim=True) / count)
        if self.added["voxel_center"]:
            parts.append(from_center)
        if self.added["distance"]:
            parts.append(raw.norm(dim=2, keepdim=True))
        slots = torch.arange(voxels.shape[1], device=voxels.device)
        used = torch.lt(slots[None, :, None], num_points[:, None, None])
        return torch.cat(parts, dim=2) * used.to(voxels.dtype)


class Boxes(nn.Module):
    """What a prediction head says of each query, with its center on the map."""

    def forward(self, said: Mapping[str, Tensor], positions: Tensor) -> Tensor:
        """(1, 8 or 6, Q) float32: see `network.Network.forward`.

        Args:
            said: by name (1, channels, Q); ``center`` is an offset from the position.
            positions: (1, Q, 2) float32, x and y in cells of the map.
        """
        centers = said["center"] + positions.transpose(1, 2)
        return torch.cat([centers, *(said[name] for name in ("height", "dim", "vel") if name in said)], dim=1)
