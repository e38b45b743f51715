"""AWML's YOLOX-opt-ELAN: backbone and neck of ELAN blocks (efficient layer aggregation) in place of YOLOX's CSP blocks.

Names of the weights are AWML's, so that its checkpoints load. `Stem`, `ELAN`: parts; `ELANDarknet`, `YOLOXPAFPN_ELAN`:
the types that its configs name. Their ASPP and depthwise variants are refused: no released model has them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from exporter.quantize.residual import ResidualBlock

_BATCH_NORM = {"type": "BN", "momentum": 0.03, "eps": 0.001}
# What mmdet's YOLOX initializes its convolutions with (PyTorch's own default, written out).
_KAIMING = {
    "type": "Kaiming", "layer": "Conv2d", "a": math.sqrt(5), "distribution": "uniform", "mode": "fan_in",
    "nonlinearity": "leaky_relu",
}  # fmt: skip

# Per stage: input and output channels, bottlenecks, expansion ratio, residual connections, ASPP.
_P5: tuple[tuple[int, int, int, float, bool, bool], ...] = (
    (32, 64, 1, 0.5, True, False),
    (64, 128, 3, 0.5, True, False),
    (128, 256, 3, 0.5, True, False),
    (256, 512, 1, 0.5, False, False),
)


class Bottleneck(BaseModule):
    """Two 3x3 convolutions of ``channels`` channels, and what came in added to what comes out if ``identity``."""

    def __init__(self, channels: int, identity: bool, **conv: Any) -> None:
        super().__init__()
        self.conv1 = ConvModule(channels, channels, 3, padding=1, **conv)
        self.conv2 = ConvModule(channels, channels, 3, padding=1, **conv)
        self.identity = identity
        self.skip = nn.Identity()  # quantization puts a quantizer here

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to the same shape."""
        y: Tensor = self.conv2(self.conv1(x))
        return y + self.skip(x) if self.identity else y

    def residual_block(self) -> ResidualBlock | None:
        """See `exporter.quantize.residual.HasResidualBlock`."""
        return ResidualBlock(self, "skip", self.conv1.conv, self.conv2.conv) if self.identity else None


class ELAN(BaseModule):
    """A short branch and a chain of bottlenecks, every link of which goes into the output.

    Args:
        in_channels, out_channels: of the block; inside there are ``out_channels * expand_ratio``.
        num_blocks: bottlenecks in the chain.
        expand_ratio: see above.
        identity: whether the bottlenecks are residual.
        conv: keyword arguments of every convolution (``norm_cfg``, ``act_cfg``, ``conv_cfg``).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, num_blocks: int, expand_ratio: float, identity: bool, **conv: Any
    ) -> None:
        super().__init__()
        middle = int(out_channels * expand_ratio)
        self.main_conv = ConvModule(in_channels, middle, 1, **conv)
        self.short_conv = ConvModule(in_channels, middle, 1, **conv)
        self.final_conv = ConvModule((num_blocks + 1) * middle, out_channels, 1, **conv)
        self.blocks = nn.ModuleList(Bottleneck(middle, identity, **conv) for _ in range(num_blocks))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H, W)."""
        parts = [self.short_conv(x)]
        link = self.main_conv(x)
        for block in self.blocks:
            link = block(link)
            parts.append(link)
        mixed: Tensor = self.final_conv(torch.cat(parts, dim=1))
        return mixed


class Stem(BaseModule):
    """Two 3x3 convolutions, the first with stride 2: (B, 3, H, W) to (B, channels, H / 2, W / 2)."""

    def __init__(self, channels: int, **conv: Any) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            ConvModule(3, channels, 3, stride=2, padding=1, **conv),
            ConvModule(channels, channels, 3, padding=1, **conv),
        )

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        y: Tensor = self.conv(x)
        return y


class ELANDarknet(BaseModule):
    """Backbone: a stem and four stages (convolution of stride 2, ELAN block), at strides 4, 8, 16 and 32.

    Args:
        arch: ``P5``.
        deepen_factor, widen_factor: on the numbers of bottlenecks and of channels.
        out_indices: outputs, 0 for the stem's and 1 to 4 for the stages'.
        arch_overwrite: stages other than those of ``arch``, as `_P5` lists them.
        conv_cfg, norm_cfg, act_cfg: of every convolution.
        use_depthwise: not available, nor is ASPP in a stage of ``arch_overwrite``.
        norm_eval, aspp_dilations: for training; without effect here.

    Raises:
        ValueError: a variant that is not available.
    """

    def __init__(
        self,
        arch: str = "P5",
        deepen_factor: float = 2.0,
        widen_factor: float = 1.0,
        out_indices: Sequence[int] = (2, 3, 4),
        use_depthwise: bool = False,
        aspp_dilations: Sequence[int] = (1, 6, 12, 18),  # noqa: ARG002
        arch_overwrite: Sequence[Sequence[Any]] | None = None,
        conv_cfg: dict[str, Any] | None = None,
        norm_cfg: dict[str, Any] | None = None,
        act_cfg: dict[str, Any] | None = None,
        norm_eval: bool = False,  # noqa: ARG002
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg or dict(_KAIMING))
        stages = tuple(arch_overwrite or _P5)
        if arch != "P5" or use_depthwise or any(stage[5] for stage in stages):
            raise ValueError("only arch P5 without ASPP and depthwise convolutions is available")
        conv = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg or _BATCH_NORM, "act_cfg": act_cfg or {"type": "ReLU"}}
        self.out_indices = tuple(out_indices)
        self.stem = Stem(int(stages[0][0] * widen_factor), **conv)
        self.names = ["stem"]
        for number, (in_channels, out_channels, blocks, expand_ratio, identity, _) in enumerate(stages, start=1):
            channels = int(out_channels * widen_factor)
            stage = nn.Sequential(
                ConvModule(int(in_channels * widen_factor), channels, 3, stride=2, padding=1, **conv),
                ELAN(
                    channels, channels, num_blocks=max(round(blocks * deepen_factor), 1), expand_ratio=expand_ratio,
                    identity=identity, **conv,
                ),
            )  # fmt: skip
            self.add_module(f"stage{number}", stage)
            self.names.append(f"stage{number}")

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) to the maps of ``out_indices``."""
        maps = []
        for name in self.names:
            x = self.get_submodule(name)(x)
            maps.append(x)
        return tuple(maps[index] for index in self.out_indices)


class YOLOXPAFPN_ELAN(BaseModule):  # noqa: N801 (AWML's name)
    """Neck: YOLOX's path aggregation, from coarse to fine and back, with ELAN blocks.

    Args:
        in_channels: of the backbone's maps, from fine to coarse.
        out_channels: of every output.
        num_elan_blocks: bottlenecks in each ELAN block.
        upsample_cfg: of ``torch.nn.Upsample``.
        conv_cfg, norm_cfg, act_cfg: of every convolution.
        use_depthwise: not available.

    Raises:
        ValueError: depthwise convolutions are asked for.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        num_elan_blocks: int = 2,
        use_depthwise: bool = False,
        upsample_cfg: dict[str, Any] | None = None,
        conv_cfg: dict[str, Any] | None = None,
        norm_cfg: dict[str, Any] | None = None,
        act_cfg: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg or dict(_KAIMING))
        if use_depthwise:
            raise ValueError("depthwise convolutions are not available")
        conv = {"conv_cfg": conv_cfg, "norm_cfg": norm_cfg or _BATCH_NORM, "act_cfg": act_cfg or {"type": "Swish"}}
        elan: dict[str, Any] = {"num_blocks": num_elan_blocks, "expand_ratio": 0.5, "identity": False, **conv}
        fine, coarse = in_channels[:-1], in_channels[1:]
        self.upsample = nn.Upsample(**(upsample_cfg or {"scale_factor": 2, "mode": "nearest"}))
        # From coarse to fine.
        pairs = list(zip(fine, coarse, strict=True))
        self.reduce_layers = nn.ModuleList(ConvModule(high, low, 1, **conv) for low, high in reversed(pairs))
        self.top_down_blocks = nn.ModuleList(ELAN(2 * low, low, **elan) for low, _ in reversed(pairs))
        # And back.
        self.downsamples = nn.ModuleList(ConvModule(low, low, 3, stride=2, padding=1, **conv) for low, _ in pairs)
        self.bottom_up_blocks = nn.ModuleList(ELAN(2 * low, high, **elan) for low, high in pairs)
        self.out_convs = nn.ModuleList(ConvModule(channels, out_channels, 1, **conv) for channels in in_channels)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps from fine to coarse, (B, in_channels, H, W) each, to as many of ``out_channels``."""
        current = inputs[-1]
        reduced = []
        for reduce, block, low in zip(self.reduce_layers, self.top_down_blocks, inputs[-2::-1], strict=True):
            reduced.append(reduce(current))
            current = block(torch.cat([self.upsample(reduced[-1]), low], dim=1))
        maps = [current]
        for down, block, high in zip(self.downsamples, self.bottom_up_blocks, reversed(reduced), strict=True):
            maps.append(block(torch.cat([down(maps[-1]), high], dim=1)))
        return tuple(conv(values) for conv, values in zip(self.out_convs, maps, strict=True))
