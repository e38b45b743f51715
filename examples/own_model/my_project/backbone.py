"""A backbone that mmdet3d does not have, as a training project registers it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet3d.registry import MODELS
from torch import nn


@MODELS.register_module()
class Trunk(nn.Module):
    """Stages of 3 x 3 convolutions, each at half the resolution of the one before.

    Args:
        in_channels: of the pillar map.
        widths: channels of each stage.
        depths: convolutions of each stage after its first.
    """

    def __init__(self, in_channels: int, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for width, depth in zip(widths, depths, strict=True):
            layers: list[nn.Module] = []
            for stride in (2, *[1] * depth):
                layers += [
                    nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False),
                    nn.BatchNorm2d(width, eps=1e-3, momentum=0.01),
                    nn.ReLU(inplace=True),
                ]
                in_channels = width
            self.blocks.append(nn.Sequential(*layers))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The map of every stage, (N, widths[i], H / 2^(i+1), W / 2^(i+1)), of a map (N, in_channels, H, W)."""
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return tuple(maps)
