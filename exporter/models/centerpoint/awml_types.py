"""AWML's own CenterPoint head parts, as far as inference needs them."""

from __future__ import annotations

import math
from typing import Any

from mmdet3d.models.dense_heads.centerpoint_head import SeparateHead
from mmdet3d.models.task_modules.coders.centerpoint_bbox_coders import CenterPointBBoxCoder as _Coder
from torch import Tensor, nn


class CustomSeparateHead(SeparateHead):
    """mmdet3d's SeparateHead; the heatmap's last bias is set when it is made, not by a later initialization."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        last_convolution = self.heatmap[-1]
        nn.init.constant_(last_convolution.bias, self.init_bias)


class CenterPointBBoxCoder(_Coder):
    """mmdet3d's coder, for networks trained on yaw measured clockwise from the y axis too.

    Args:
        y_axis_reference: the network answers with w, l, h and with the yaw measured clockwise from +y; boxes come out
            with l, w, h and the yaw counter-clockwise from +x all the same.
        options: those of mmdet3d's coder.
    """

    def __init__(self, y_axis_reference: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.y_axis_reference = y_axis_reference

    def decode(self, *maps: Any, **options: Any) -> list[dict[str, Tensor]]:
        """Boxes of each sample: ``bboxes`` (N, 9), x, y, z, l, w, h, yaw, vx, vy; ``scores`` and ``labels`` (N,)."""
        decoded: list[dict[str, Tensor]] = super().decode(*maps, **options)
        if self.y_axis_reference:
            for sample in decoded:
                boxes = sample["bboxes"]
                boxes[:, [3, 4]] = boxes[:, [4, 3]]
                boxes[:, 6] = -boxes[:, 6] - math.pi / 2
        return decoded
