"""BEVVoVNet: VoVNet with squeeze and excitation (eSE) for maps of pillar features, whose stem keeps the resolution."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from shared.errors import ConfigError

# Channels of the stem's convolutions; per stage: channels inside of a block, channels of its output.
_STEM = (64, 64, 128)
_INSIDE = (128, 160, 192, 224)
_OUTPUTS = (256, 512, 768, 1024)
_LAYERS = 5
_FIRST_STAGE = 2
# Blocks of each stage. V-57 and V-99 count the layers.
_BLOCKS = {"V-57-eSE": (1, 1, 4, 3), "V-99-eSE": (1, 3, 9, 3)}


def _convolution(name: str, channels: int, outputs: int, kernel: int, stride: int = 1) -> OrderedDict[str, nn.Module]:
    """Convolution, batch norm and ReLU under the names that the weights have."""
    return OrderedDict(
        {
            f"{name}/conv": nn.Conv2d(channels, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
            f"{name}/norm": nn.BatchNorm2d(outputs),
            f"{name}/relu": nn.ReLU(inplace=True),
        }
    )


class _Excitation(nn.Module):
    """eSE: every channel times a gate that the means of all channels open, a hard sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        gate = F.relu6(self.fc(F.adaptive_avg_pool2d(x, 1)) + 3.0) / 6.0
        return x * gate


class _Block(nn.Module):
    """One-shot aggregation: convolutions one behind the other, of which all outputs and the input are joined once.

    Papers: https://arxiv.org/abs/1904.09730, and for eSE https://arxiv.org/abs/1911.06667.
    """

    def __init__(self, name: str, channels: int, inside: int, outputs: int, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.layers = nn.ModuleList(
            nn.Sequential(_convolution(f"{name}_{i}", inside if i else channels, inside, 3)) for i in range(_LAYERS)
        )
        self.concat = nn.Sequential(_convolution(f"{name}_concat", channels + _LAYERS * inside, outputs, 1))
        self.ese = _Excitation(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, outputs, H, W)."""
        maps = [x]
        for layer in self.layers:
            maps.append(layer(maps[-1]))
        joined: Tensor = self.ese(self.concat(torch.cat(maps, dim=1)))
        return joined + x if self.residual else joined


class BEVVoVNet(BaseModule):
    """VoVNet up to the last stage that is asked for.

    Weights: ``stem.stem_<i>/{conv,norm}.*``, ``stage<k>.OSA<k>_<j>.layers.<i>.OSA<k>_<j>_<i>/{conv,norm}.*``,
    ``stage<k>.OSA<k>_<j>.concat.OSA<k>_<j>_concat/{conv,norm}.*``, ``stage<k>.OSA<k>_<j>.ese.fc.*``; k from 2.

    Args:
        spec_name: ``V-57-eSE`` or ``V-99-eSE``.
        input_ch: channels of the pillar features.
        stem_strides: of the stem's three convolutions.
        out_features: what is returned, of ``stem``, ``stage2``, …, ``stage5``.
        no_pool_stages: numbers of stages that keep the resolution; stage 2 always does, the others halve it.
        norm_eval: for training; without effect here.
        init_cfg: see mmengine's BaseModule.

    Raises:
        ConfigError: a variant that is not available.
        ValueError: not three strides.
    """

    def __init__(
        self,
        spec_name: str,
        input_ch: int = 3,
        stem_strides: Sequence[int] = (1, 1, 1),
        out_features: Sequence[str] = (),
        no_pool_stages: Collection[int] = (),
        norm_eval: bool = True,  # noqa: ARG002
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if spec_name not in _BLOCKS:
            raise ConfigError(f"no variant '{spec_name}'", where="BEVVoVNet", hint=f"there are {', '.join(_BLOCKS)}")
        names = [f"stage{_FIRST_STAGE + i}" for i in range(len(_OUTPUTS))]
        unknown = sorted(set(out_features) - {"stem", *names})
        if unknown or not out_features:
            raise ConfigError(
                f"out_features are {list(out_features)}", where="BEVVoVNet", hint=f"there are stem, {', '.join(names)}"
            )
        self.out_features = tuple(out_features)
        stem: OrderedDict[str, nn.Module] = OrderedDict()
        for i, (stride, channels, outputs) in enumerate(zip(stem_strides, (input_ch, *_STEM[:-1]), _STEM, strict=True)):
            stem |= _convolution(f"stem_{i + 1}", channels, outputs, 3, stride)
        self.stem = nn.Sequential(stem)
        last = max((names.index(name) for name in out_features if name in names), default=-1)
        self.stage_names = names[: last + 1]
        channels = _STEM[-1]
        for i, name in enumerate(self.stage_names):
            self.add_module(name, _stage(i, channels, _BLOCKS[spec_name][i], no_pool_stages))
            channels = _OUTPUTS[i]

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, input_ch, H, W) to the maps of ``out_features``, in the order of the stages."""
        x = self.stem(x)
        outputs = [x] if "stem" in self.out_features else []
        for name in self.stage_names:
            x = self.get_submodule(name)(x)
            if name in self.out_features:
                outputs.append(x)
        return outputs


def _stage(index: int, channels: int, blocks: int, no_pool_stages: Collection[int]) -> nn.Sequential:
    """Blocks behind a pooling, which stage 2 and those named don't have."""
    number = _FIRST_STAGE + index
    stage: OrderedDict[str, nn.Module] = OrderedDict()
    if index and number not in no_pool_stages:
        stage["Pooling"] = nn.MaxPool2d(3, stride=2, ceil_mode=True)
    for j in range(1, blocks + 1):
        name = f"OSA{number}_{j}"
        first = j == 1
        stage[name] = _Block(name, channels if first else _OUTPUTS[index], _INSIDE[index], _OUTPUTS[index], not first)
    return nn.Sequential(stage)
