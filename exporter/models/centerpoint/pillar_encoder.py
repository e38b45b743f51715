"""AWML's pillar encoder without the distance to the pillar center in z: 9 features from x, y, z, t."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet3d.models.voxel_encoders.utils import PFNLayer, get_paddings_indicator
from torch import Tensor, nn


class BackwardPillarFeatureNet(nn.Module):
    """Pillar encoder whose decoration is x, y, z, … | offsets to the mean (3) | offsets to the center in x, y (2).

    Formulas: facts of mmdet3d 1.x before z was added to the center offsets; AWML ``BackwardPillarFeatureNet``.
    Weights: ``pfn_layers.<i>.{linear,norm}.*``, as in mmdet3d's PillarFeatureNet.

    Args:
        in_channels: features of a raw point, at least x, y, z.
        feat_channels: outputs of each layer.
        with_distance: add the distance of a point to the origin.
        with_cluster_center: add the offsets to the mean of the pillar's points.
        with_voxel_center: add the offsets to the pillar's center in x and y.
        voxel_size: x, y, z in meters.
        point_cloud_range: minimum then maximum of x, y, z in meters.
        norm_cfg: batch norm of the layers.
        mode: how a pillar's points are reduced, ``max`` or ``avg``.
        legacy: the offsets to the center overwrite the raw x and y, as old releases of mmdet3d did.
    """

    def __init__(
        self,
        in_channels: int = 4,
        feat_channels: Sequence[int] = (64,),
        with_distance: bool = False,
        with_cluster_center: bool = True,
        with_voxel_center: bool = True,
        voxel_size: Sequence[float] = (0.2, 0.2, 4),
        point_cloud_range: Sequence[float] = (0, -40, -3, 70.4, 40, 1),
        norm_cfg: dict[str, Any] | None = None,
        mode: str = "max",
        legacy: bool = True,
    ) -> None:
        super().__init__()
        self.legacy = legacy
        self._with_distance = with_distance
        self._with_cluster_center = with_cluster_center
        self._with_voxel_center = with_voxel_center
        self.in_channels = in_channels + 3 * with_cluster_center + 2 * with_voxel_center + 1 * with_distance
        norm = norm_cfg or {"type": "BN1d", "eps": 1e-3, "momentum": 0.01}
        widths = [self.in_channels, *feat_channels]
        last = len(feat_channels) - 1
        self.pfn_layers = nn.ModuleList(
            PFNLayer(widths[i], widths[i + 1], norm_cfg=norm, last_layer=i == last, mode=mode)
            for i in range(len(feat_channels))
        )
        self.vx, self.vy = voxel_size[:2]
        self.x_offset = self.vx / 2 + point_cloud_range[0]
        self.y_offset = self.vy / 2 + point_cloud_range[1]
        self.point_cloud_range = point_cloud_range

    def forward(self, features: Tensor, num_points: Tensor, coors: Tensor, *_unused: Any, **_also: Any) -> Tensor:
        """Encode pillars.

        Args:
            features: (N, M, C) float32 points, unused slots zero; C = raw features.
            num_points: (N,) int, points in each pillar.
            coors: (N, 4) int, batch index, z, y, x of each pillar.

        Returns:
            (N, feat_channels[-1]) float32.
        """
        decorated = [features]
        if self._with_cluster_center:
            mean = features[:, :, :3].sum(dim=1, keepdim=True) / num_points.type_as(features).view(-1, 1, 1)
            decorated.append(features[:, :, :3] - mean)
        if self._with_voxel_center:
            cells = coors[:, [3, 2]].to(features.dtype)
            center = torch.stack([cells[:, 0] * self.vx + self.x_offset, cells[:, 1] * self.vy + self.y_offset], dim=1)
            offset = features[:, :, :2] - center[:, None, :]
            if self.legacy:
                decorated[0] = torch.cat([offset, features[:, :, 2:]], dim=-1)
            decorated.append(offset)
        if self._with_distance:
            decorated.append(torch.norm(decorated[0][:, :, :3], 2, 2, keepdim=True))
        stacked = torch.cat(decorated, dim=-1)
        used = get_paddings_indicator(num_points, stacked.shape[1], axis=0)
        stacked = stacked * used[:, :, None].type_as(stacked)
        for layer in self.pfn_layers:
            stacked = layer(stacked, num_points)
        pillars: Tensor = stacked.squeeze(1)
        return pillars
