"""The box coder, as far as inference needs it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class TransFusionBBoxCoder:
    """From what the head says of each query to boxes.

    Args:
        pc_range: least x and y of the map [m].
        out_size_factor: voxels per cell of the map.
        voxel_size: of a voxel along x and y [m].
        post_center_range: bounds of x, y and z [m] of the centers of bottom faces, both included.
        score_threshold: scores must lie above it; None or 0: no threshold.
        code_size: numbers of a box, 10 with velocity.
    """

    def __init__(
        self,
        pc_range: Sequence[float],
        out_size_factor: int,
        voxel_size: Sequence[float],
        post_center_range: Sequence[float],
        score_threshold: float | None = None,
        code_size: int = 8,
    ) -> None:
        self.pc_range = pc_range
        self.out_size_factor = out_size_factor
        self.voxel_size = voxel_size
        self.post_center_range = post_center_range
        self.score_threshold = score_threshold
        self.code_size = code_size

    def decode(
        self, heatmap: Tensor, rot: Tensor, dim: Tensor, center: Tensor, height: Tensor, vel: Tensor | None
    ) -> list[dict[str, Tensor]]:
        """Boxes of each sample, in the order of the queries.

        Args:
            heatmap: (B, classes, Q) scores.
            rot: (B, 2, Q) sine and cosine of the yaw.
            dim: (B, 3, Q) logarithms of l, w, h [m].
            center: (B, 2, Q) x and y in cells of the map.
            height: (B, 1, Q) z of the center of gravity [m].
            vel: (B, 2, Q) along x and y [m/s], where the head has it.

        Returns:
            For each sample ``bboxes`` (N, 7 or 9): x, y, z of the bottom face's center, l, w, h, yaw, vx, vy;
            ``scores`` and ``labels`` (N,).
        """
        scores, labels = heatmap.max(dim=1)
        boxes = self.boxes(rot, dim, center, height, vel)
        low, high = boxes.new_tensor(self.post_center_range).view(2, 3)
        kept = ((boxes[..., :3] >= low) & (boxes[..., :3] <= high)).all(dim=2)
        if self.score_threshold:
            kept &= scores > self.score_threshold
        return [
            {"bboxes": boxes[i, kept[i]], "scores": scores[i, kept[i]], "labels": labels[i, kept[i]]}
            for i in range(len(boxes))
        ]

    def boxes(self, rot: Tensor, dim: Tensor, center: Tensor, height: Tensor, vel: Tensor | None) -> Tensor:
        """(B, Q, 7 or 9): all of the queries' boxes, see `decode`."""
        x = center[:, 0:1] * self.out_size_factor * self.voxel_size[0] + self.pc_range[0]
        y = center[:, 1:2] * self.out_size_factor * self.voxel_size[1] + self.pc_range[1]
        sizes = dim.exp()
        bottom = height - sizes[:, 2:3] * 0.5
        yaw = torch.atan2(rot[:, 0:1], rot[:, 1:2])
        columns = [x, y, bottom, sizes, yaw, *([] if vel is None else [vel])]
        return torch.cat(columns, dim=1).transpose(1, 2)
