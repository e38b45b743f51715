"""ConvNeXt_PC: the ConvNeXt backbone for pillars of AWML's short range models (from PillarNeSt)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from shared.errors import ConfigError

_KERNEL = 7
_MLP_RATIO = 4
# nn.LayerNorm's own default; the norms in front of the strided convolutions are made with it.
_DOWNSAMPLE_EPS = 1e-5
# mmpretrain's ConvNeXt-tiny, whose constructor runs first in AWML's class, leaves its last norm behind.
_TINY_LAST_STAGE, _TINY_LAST_WIDTH = 3, 768


class _ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        last = x.permute(0, 2, 3, 1).contiguous()
        normed = F.layer_norm(last, self.normalized_shape, self.weight, self.bias, self.eps)
        return normed.permute(0, 3, 1, 2).contiguous()


class _Block(nn.Module):
    """ConvNeXt block: depthwise convolution, layer norm, two pointwise layers with GELU, layer scale, residual.

    Paper: https://arxiv.org/abs/2201.03545. Stochastic depth is for training only and left out.
    """

    def __init__(self, channels: int, eps: float, linear_pointwise: bool, layer_scale: float) -> None:
        super().__init__()
        hidden = _MLP_RATIO * channels
        self._linear = linear_pointwise
        self.depthwise_conv = nn.Conv2d(channels, channels, _KERNEL, padding=_KERNEL // 2, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=eps)
        self.pointwise_conv1 = nn.Linear(channels, hidden) if linear_pointwise else nn.Conv2d(channels, hidden, 1)
        self.pointwise_conv2 = nn.Linear(hidden, channels) if linear_pointwise else nn.Conv2d(hidden, channels, 1)
        self.gamma = nn.Parameter(layer_scale * self.norm.weight.new_ones(channels)) if layer_scale > 0 else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        y = self.norm(self.depthwise_conv(x).permute(0, 2, 3, 1))
        if not self._linear:
            y = y.permute(0, 3, 1, 2)
        y = self.pointwise_conv2(F.gelu(self.pointwise_conv1(y)))
        if self._linear:
            y = y.permute(0, 3, 1, 2)
        if self.gamma is not None:
            y = y * self.gamma.view(1, -1, 1, 1)
        result: Tensor = x + y
        return result


class ConvNeXtPC(BaseModule):
    """Stages of ConvNeXt blocks; every stage but the first halves the resolution.

    Weights: ``downsample_layers.<i>.{0,1}.*`` (i >= first_downsample), ``stages.<i>.<j>.*``, ``norm<i>.*``.

    Args:
        out_channels: width of each stage; the first is replaced by ``in_channels``.
        depths: blocks of each stage.
        in_channels: channels of the pillar features.
        norm_cfg: only its ``eps`` counts; the type is always a channel layer norm.
        linear_pw_conv: pointwise layers are linear layers (else 1x1 convolutions, with other weight shapes).
        layer_scale_init_value: 0 leaves layer scale out.
        out_indices: stages whose outputs are returned.
        gap_before_final_norm: must be False: a detector needs maps, not vectors.
        first_downsample: first stage that halves the resolution.
        training_only: ``drop_path_rate``, ``with_cp``, ``stem_patch_size``, ``act_cfg``.
    """

    def __init__(
        self,
        out_channels: Sequence[int],
        depths: Sequence[int],
        in_channels: int = 3,
        norm_cfg: dict[str, Any] | None = None,
        linear_pw_conv: bool = True,
        layer_scale_init_value: float = 1e-6,
        out_indices: Sequence[int] = (-1,),
        gap_before_final_norm: bool = True,
        first_downsample: int = 1,
        large_arch: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
        **training_only: Any,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        unknown = set(training_only) - {"drop_path_rate", "with_cp", "stem_patch_size", "act_cfg"}
        if unknown:
            raise ConfigError(f"unknown arguments: {', '.join(sorted(unknown))}", where="ConvNeXt_PC")
        if gap_before_final_norm or large_arch is not None:
            raise ConfigError(
                "gap_before_final_norm=True and large_arch are not supported",
                where="ConvNeXt_PC",
                hint="set gap_before_final_norm=False and leave large_arch out, as AWML's configs do",
            )
        if len(out_channels) != len(depths):
            raise ConfigError(f"{len(out_channels)} widths and {len(depths)} depths", where="ConvNeXt_PC")
        eps = float((norm_cfg or {}).get("eps", 1e-6))
        widths = [in_channels, *out_channels[1:]]
        self.first_downsample = first_downsample
        # Negative positions count from 4 in the original, whatever the number of stages.
        self.out_indices = [index if index >= 0 else 4 + index for index in out_indices]
        self.downsample_layers = nn.ModuleList()
        self.stages = nn.ModuleList()
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            before = widths[i - 1] if i else in_channels
            self.downsample_layers.append(
                nn.Sequential(_ChannelNorm(before, eps=_DOWNSAMPLE_EPS), nn.Conv2d(before, width, 2, stride=2))
                if i >= first_downsample
                else nn.Identity()
            )
            blocks = [_Block(width, eps, linear_pw_conv, layer_scale_init_value) for _ in range(depth)]
            self.stages.append(nn.Sequential(*blocks))
        for i in sorted({*self.out_indices, _TINY_LAST_STAGE}):
            width = widths[i] if i in self.out_indices else _TINY_LAST_WIDTH
            self.add_module(f"norm{i}", _ChannelNorm(width, eps=eps))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Maps of the stages in ``out_indices``: (B, in_channels, H, W) to (B, width, H / 2^k, W / 2^k) each."""
        outputs = []
        for i, stage in enumerate(self.stages):
            x = stage(self.downsample_layers[i](x))
            if i in self.out_indices:
                outputs.append(self.get_submodule(f"norm{i}")(x))
        return tuple(outputs)
