"""YOLOX with a mask head as a module to export."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from exporter.models.yolox.graph import RawRows, rows_of, without_limits


class RowsAndMask(RawRows):
    """Images (B, 3, H, W) to rows (B, N, 5 + C), see `RawRows`, and the probabilities of pixels' classes (B, K, H, W).

    Probabilities, since Autoware's node looks for the greatest value above zero. They are those of two by two pixels
    each, and are doubled last: the results are the same, and take a quarter of the time.

    Args:
        model: a `YOLOXMultiTask`.
        relu6_to_relu: see `RawRows`.
    """

    mask_head: Any

    def __init__(self, model: Any, relu6_to_relu: bool) -> None:
        super().__init__(model, relu6_to_relu)
        heads = nn.ModuleList([model.mask_head])
        (self.mask_head,) = without_limits(heads) if relu6_to_relu else heads

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]  # a mask more
        """See the class."""
        levels = self.neck(self.backbone(images))
        mask = doubled(self.mask_head.at_half_size(levels).softmax(dim=1))
        return rows_of(self.head(levels)), mask


def doubled(images: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C, 2 H, 2 W), each pixel four times."""
    return functional.interpolate(images, scale_factor=2.0, mode="nearest")
