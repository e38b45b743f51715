"""MobileNetV2 with a linear head: the modules of an ``ImageClassifier`` of mmpretrain, under the same names.

Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", CVPR 2018. mmpretrain need not be installed:
its checkpoints load, and what a network computes is the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from exporter.quantize.residual import ResidualBlock

#: Factor of the hidden channels, channels, blocks and stride of each stage: table 2 of the paper.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_FIRST, _LAST = 32, 1280
_DIVISOR = 8
# Rounding to the divisor may take no more than a tenth of the channels away.
_LEAST_SHARE = 0.9


class ConvNorm(nn.Module):
    """Convolution, batch norm and, unless it is linear, ReLU6."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, *, linear: bool
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.activate = nn.Identity() if linear else nn.ReLU6(inplace=True)

    def forward(self, values: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        result: Tensor = self.activate(self.bn(self.conv(values)))
        return result


class InvertedResidual(nn.Module):
    """Expansion, a convolution of each channel by itself, projection; a skip connection where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, factor: int) -> None:
        super().__init__()
        hidden = inputs * factor
        expansion = [] if factor == 1 else [ConvNorm(inputs, hidden, 1, linear=False)]
        self.conv = nn.Sequential(
            *expansion,
            ConvNorm(hidden, hidden, 3, stride, groups=hidden, linear=False),
            ConvNorm(hidden, outputs, 1, linear=True),
        )
        self.is_residual = stride == 1 and inputs == outputs
        self.skip: nn.Module = nn.Identity()

    def forward(self, values: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        result: Tensor = self.conv(values)
        return self.skip(values) + result if self.is_residual else result

    def residual_block(self) -> ResidualBlock | None:
        """See `exporter.quantize.residual.HasResidualBlock`."""
        if not self.is_residual:
            return None
        return ResidualBlock(self, "skip", self.conv[0].conv, self.conv[-1].conv)


class MobileNetV2(nn.Module):
    """The backbone.

    Args:
        widen_factor: of the channels, which are rounded to multiples of 8; the last layer has no fewer than 1280.
    """

    def __init__(self, widen_factor: float = 1.0) -> None:
        super().__init__()
        channels = divisible(_FIRST * widen_factor)
        self.conv1 = ConvNorm(3, channels, 3, 2, linear=False)
        self._stages = []
        for number, (factor, width, blocks, stride) in enumerate(STAGES, start=1):
            outputs = divisible(width * widen_factor)
            sizes = [channels, *[outputs] * blocks]
            strides = [stride, *[1] * (blocks - 1)]
            stage = nn.Sequential(
                *(InvertedResidual(sizes[i], outputs, step, factor) for i, step in enumerate(strides))
            )
            self.add_module(f"layer{number}", stage)
            self._stages.append(f"layer{number}")
            channels = outputs
        self.channels = int(_LAST * max(1.0, widen_factor))
        self.conv2 = ConvNorm(channels, self.channels, 1, linear=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, channels, H / 32, W / 32)."""
        values = self.conv1(images)
        for name in self._stages:
            values = self.get_submodule(name)(values)
        result: Tensor = self.conv2(values)
        return result


class LinearHead(nn.Module):
    """The last layer."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, classes)


class ImageClassifier(nn.Module):
    """Backbone, mean over the image, linear layer."""

    def __init__(self, widen_factor: float, classes: int) -> None:
        super().__init__()
        self.backbone = MobileNetV2(widen_factor)
        self.head = LinearHead(self.backbone.channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to logits (B, classes)."""
        features = nn.functional.adaptive_avg_pool2d(self.backbone(images), 1)
        logits: Tensor = self.head.fc(torch.flatten(features, 1))
        return logits


class Probabilities(nn.Module):
    """What is exported: mmdeploy's ``end2end`` classifiers end in the softmax."""

    def __init__(self, model: ImageClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to probabilities (B, classes)."""
        return torch.softmax(self.model(images), dim=1)


def divisible(channels: float) -> int:
    """The nearest multiple of 8 that is at least 8, and not a tenth less than ``channels``."""
    rounded = max(_DIVISOR, int(channels + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return rounded + _DIVISOR if rounded < _LEAST_SHARE * channels else rounded
