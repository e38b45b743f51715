"""BEVResNet: mmdet's ResNet for maps of pillar features, whose stem keeps the resolution."""

from __future__ import annotations

from typing import Any

from mmdet.models.backbones.resnet import ResNet
from torch import nn


class BEVResNet(ResNet):
    """mmdet's ResNet with another stem; the weights have its names.

    Args:
        conv1_stride: of the stem's first convolution.
        with_pool: pool behind the stem.
        pool_stride: of that pooling; 1 where it is left out.
        options: those of mmdet's ResNet.
    """

    def __init__(
        self, conv1_stride: int = 1, with_pool: bool = False, pool_stride: int | None = None, **options: Any
    ) -> None:
        self._conv1_stride = conv1_stride
        self._pool_stride = (pool_stride or 1) if with_pool else None
        super().__init__(**options)

    def _make_stem_layer(self, in_channels: int, stem_channels: int) -> None:
        super()._make_stem_layer(in_channels, stem_channels)
        first = self.stem[0] if self.deep_stem else self.conv1
        first.stride = (self._conv1_stride, self._conv1_stride)
        pooled = self._pool_stride is not None
        self.maxpool = nn.MaxPool2d(3, stride=self._pool_stride, padding=1) if pooled else nn.Identity()
