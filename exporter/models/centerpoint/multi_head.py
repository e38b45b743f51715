"""AWML's head with convolutions, and a resolution, of every task's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmcv.cnn import ConvModule, build_conv_layer
from mmdet3d.models.dense_heads.centerpoint_head import CenterHead
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from exporter.models.centerpoint.awml_types import CenterPointBBoxCoder

# Stride, padding and kernel of a convolution.
Convolution = tuple[int, int, int]


class MultiHeadSeparateHead(BaseModule):
    """The maps of one task, each by convolutions of its own.

    Weights: ``<map>.<i>.{conv,bn}.*``, and ``<map>.<last>.*`` without a norm.

    Args:
        in_channels: of the shared map.
        heads: name of a map to its channels and its convolutions.
        head_conv: channels between the convolutions.
        init_bias: of the heatmap's last convolution.
        conv_cfg, norm_cfg, bias: see mmcv's ConvModule.
        num_cls: classes of the task, which ``heads`` says too.
        init_cfg: see mmengine's BaseModule.
    """

    def __init__(
        self,
        in_channels: int,
        heads: Mapping[str, tuple[int, Sequence[Convolution]]],
        head_conv: int = 64,
        init_bias: float = -2.19,
        conv_cfg: dict[str, Any] | None = None,
        norm_cfg: dict[str, Any] | None = None,
        bias: bool | str = "auto",
        num_cls: int | None = None,  # noqa: ARG002
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.heads = heads
        convolution = conv_cfg or {"type": "Conv2d"}
        norm = norm_cfg or {"type": "BN2d"}
        for name, (channels, convolutions) in heads.items():
            layers: list[nn.Module] = []
            *inner, (last_stride, last_padding, last_kernel) = convolutions
            for stride, padding, kernel in inner:
                layers.append(
                    ConvModule(
                        head_conv if layers else in_channels, head_conv, kernel, stride=stride, padding=padding,
                        bias=bias, conv_cfg=convolution, norm_cfg=norm,
                    )
                )  # fmt: skip
            layers.append(
                build_conv_layer(
                    convolution, head_conv, channels, kernel_size=last_kernel, stride=last_stride,
                    padding=last_padding, bias=True,
                )
            )  # fmt: skip
            self.add_module(name, nn.Sequential(*layers))
        last: Any = self.get_submodule("heatmap")[-1]
        nn.init.constant_(last.bias, init_bias)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The shared map (B, in_channels, H, W) to maps by name."""
        return {name: self.get_submodule(name)(x) for name in self.heads}


class MultiHeadCenterHead(CenterHead):
    """mmdet3d's CenterHead, whose tasks have heads that differ.

    Args:
        detection_heads: per task: ``separate_head``, type and arguments of its head, and the maps as
            `MultiHeadSeparateHead` takes them.
        tasks, share_conv_channel: as in mmdet3d's.
        options: those of mmdet3d's; ``common_heads`` and ``separate_head`` play no part.
    """

    def __init__(
        self,
        detection_heads: Sequence[Mapping[str, Any]],
        tasks: Sequence[Mapping[str, Any]],
        share_conv_channel: int = 64,
        **options: Any,
    ) -> None:
        unused = {"common_heads": {}, "separate_head": {"type": "SeparateHead"}}
        super().__init__(tasks=list(tasks), share_conv_channel=share_conv_channel, **{**options, **unused})
        self.task_heads = nn.ModuleList(
            MODELS.build(
                {
                    **detection["separate_head"],
                    "in_channels": share_conv_channel,
                    "heads": {name: maps for name, maps in detection.items() if name != "separate_head"},
                    "num_cls": len(task["class_names"]),
                }
            )
            for detection, task in zip(detection_heads, tasks, strict=True)
        )


class MultiHeadCenterPointBBoxCoder(CenterPointBBoxCoder):
    """AWML's coder, for tasks of different resolutions too.

    Args:
        out_size_factor: voxels per output cell, along either axis; a sequence has one a task.
        options: those of `CenterPointBBoxCoder`.
    """

    def __init__(self, out_size_factor: int | Sequence[int], **options: Any) -> None:
        super().__init__(out_size_factor=out_size_factor, **options)
        factors = [] if isinstance(out_size_factor, int) else out_size_factor
        self._of_tasks = [CenterPointBBoxCoder(out_size_factor=factor, **options) for factor in factors]

    def decode(self, *maps: Any, task_id: int = -1, **options: Any) -> list[dict[str, Tensor]]:
        """See `CenterPointBBoxCoder`; ``task_id`` is the task's number."""
        if self._of_tasks:
            return self._of_tasks[task_id].decode(*maps, task_id=task_id, **options)
        return super().decode(*maps, task_id=task_id, **options)
