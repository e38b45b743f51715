"""A network small enough to quantize in a blink, with every kind of layer that can be."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Net(nn.Module):
    """Convolutions with batch norm, a transposed one, a skip connection, and a linear layer: (B, 3, H, W) to (B, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1, groups=2), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.up = nn.Sequential(nn.ConvTranspose2d(8, 8, 2, 2, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.linear = nn.Linear(8, 6)
        self.norm = nn.BatchNorm1d(6)
        self.out = nn.Linear(6, 5)

    def forward(self, image: Any) -> Any:
        first = self.stem(image)
        cells = (self.up(self.block(first)) + first).flatten(2).transpose(1, 2)
        # As mmdet3d's pillar layers do: channels last for the linear layer, on axis 1 for the norm.
        features = self.norm(self.linear(cells).permute(0, 2, 1)).permute(0, 2, 1)
        return self.out(torch.relu(features)).amax(1)


def net(seed: int = 0) -> Net:
    """The network with random weights and norms that have seen something, in evaluation mode."""
    torch.manual_seed(seed)
    model = Net()
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            nn.init.normal_(module.weight, 1.0, 0.2)
            nn.init.normal_(module.bias)
    return model.eval()


def images(count: int, seed: int = 1) -> list[Any]:
    """Inputs of `Net`."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, 8, 12, generator=generator) for _ in range(count)]
