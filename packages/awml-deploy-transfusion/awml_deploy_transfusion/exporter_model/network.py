"""The network as it is exported: from voxels to what is said of each query, of one sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from awml_deploy_transfusion.exporter_model.cells import best_first, local_maxima
from awml_deploy_transfusion.exporter_model.coordinates import Boxes, Decoration
from exporter.lidar.pillar_layers import folded


class Network(nn.Module):
    """Voxels to scores, boxes and rotations.

    Two things differ from the network in training, with the same results. Points are decorated without changing them in
    place. And the best cells are chosen by a TopK of fixed K, which TensorRT has up to 3840; training sorts all cells.

    Args:
        model: a TransFusion.
        decoration: what is added to a point, see `exporter_model.parameters`.
    """

    map_positions: Tensor
    labels: Tensor

    def __init__(self, model: Any, decoration: Mapping[str, Any]) -> None:
        super().__init__()
        encoder, scatter, head = model.pts_voxel_encoder, model.pts_middle_encoder, model.pts_bbox_head
        self.decoration, self.boxes = Decoration(encoder, decoration), Boxes()
        self.rows, self.columns = int(scatter.ny), int(scatter.nx)
        self.layers = folded(encoder.pfn_layers)
        self.backbone, self.neck = model.pts_backbone, model.pts_neck
        self.head = head
        self.register_buffer("map_positions", head.bev_pos.clone(), persistent=False)
        self.register_buffer("labels", torch.arange(head.num_classes)[:, None], persistent=False)

    def forward(self, voxels: Tensor, num_points: Tensor, coors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The network on one sample.

        Args:
            voxels: (N, M, C) float32 points, unused slots zero. A voxel without points leaves its cell empty.
            num_points: (N,) int32 points of each voxel.
            coors: (N, 4) int32: zero, and the cell along z, y, x.

        Returns:
            scores (1, classes, Q): of the class that a query was chosen for, zero for others; boxes (1, 8 or 6, Q): x
            and y in cells of the map, z of the center of gravity [m], logarithms of l, w, h [m], and the velocity
            along x and y [m/s]; rotations (1, 2, Q): sine and cosine of the yaw.
        """
        features = self.decoration(voxels, num_points, coors)
        for layer in self.layers:
            features = layer(features)
        filled = (num_points > 0).to(features.dtype)[:, None]
        return self._head(self.neck(self.backbone(self._map(features[:, 0] * filled, coors)))[0])

    def _map(self, features: Tensor, coors: Tensor) -> Tensor:
        """(1, C, rows, columns): the features of the pillars at their places, zero elsewhere."""
        cells = (coors[:, 2] * self.columns + coors[:, 3]).long()
        channels = features.shape[1]
        canvas = features.new_zeros(self.rows * self.columns, channels).index_put((cells,), features)
        return canvas.transpose(0, 1).reshape(1, channels, self.rows, self.columns)

    def _head(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, boxes and rotations."""
        head = self.head
        features = head.shared_conv(features)
        flat = features.flatten(2)
        heatmap = local_maxima(head.heatmap_head(features).sigmoid(), head.nms_kernel_size).flatten(2)
        cells_per_class = flat.shape[2]
        best = best_first(heatmap.flatten(), head.num_proposals)
        labels = torch.div(best, cells_per_class, rounding_mode="trunc")
        cells = best - labels * cells_per_class
        one_hot = torch.eq(labels[None], self.labels).to(features.dtype)[None]
        query = flat.index_select(2, cells) + head.class_encoding(one_hot)
        positions = self.map_positions.index_select(1, cells)
        for layer, says in zip(head.decoder, head.prediction_heads, strict=True):
            query = layer(query, key=flat, query_pos=positions, key_pos=self.map_positions)
            said = says(query)
            boxes = self.boxes(said, positions)
            positions = boxes[:, :2].transpose(1, 2)
        return heatmap.index_select(2, cells) * said["heatmap"].sigmoid() * one_hot, boxes, said["rot"]
