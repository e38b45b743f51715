"""AWML's YOLOX-opt-ELAN of two tasks: the detector, and a head that labels every pixel.

Names of the weights are AWML's, so that its checkpoints load. `YOLOXSegHead` and `YOLOXMultiTask` are the types that
its configs name; its depthwise variant is refused: no released model has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmdet.models.detectors import YOLOX
from mmengine.model import BaseModule
from mmengine.structures import PixelData
from torch import Tensor, nn
from torch.nn import functional

from exporter.models.yolox_seg.graph import doubled
from shared.metrics.confusion import UNLABELED


class YOLOXSegHead(BaseModule):
    """The features of all levels, brought to the finest and joined, convolved and doubled three times in size.

    Args:
        in_channels: of each level.
        num_classes: that a pixel can be of.
        channels: of the first convolutions, later ones have half as many. None: all those of the levels, as in AWML,
            whose head has no other width.
        act_cfg: activation of the convolutions.
        depthwise: refused.
        training_only: losses and the like, without effect here; AWML reads no ``feat_channels`` either.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        channels: int | None = None,
        act_cfg: Mapping[str, Any] | None = None,
        depthwise: bool = False,
        **training_only: Any,  # noqa: ARG002
    ) -> None:
        super().__init__()
        if depthwise:
            raise ValueError("depthwise convolutions of YOLOXSegHead are not supported")
        joined = sum(in_channels)
        width = joined if channels is None else channels
        conv = {"padding": 1, "norm_cfg": {"type": "BN"}, "act_cfg": dict(act_cfg or {"type": "ReLU6"})}
        self.num_classes = num_classes
        self.conv1 = ConvModule(joined, width, 3, **conv)
        self.conv2 = ConvModule(width, width, 3, **conv)
        self.conv3 = ConvModule(width, width // 2, 3, **conv)
        self.conv4 = ConvModule(width // 2, width // 2, 3, **conv)
        self.out_conv = nn.Conv2d(width // 2, num_classes, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Features (B, C_i, H_i, W_i) by level, the finest of a stride of 8 first, to logits (B, classes, H, W)."""
        return doubled(self.at_half_size(levels))

    def at_half_size(self, levels: Sequence[Tensor]) -> Tensor:
        """Logits of which each is that of two by two pixels: (B, classes, H / 2, W / 2)."""
        # As numbers: only the batch may be dynamic, and a traced graph says so only if the rest is constant.
        height, width = (int(side) for side in levels[0].shape[2:])
        finest = [
            functional.interpolate(level, (height, width), mode="bilinear", align_corners=False) for level in levels
        ]
        features = self.conv2(self.conv1(torch.cat(finest, dim=1)))
        features = self.conv3(doubled(features))
        # A 1x1 convolution and doubling by neighbors may change places.
        logits: Tensor = self.out_conv(self.conv4(doubled(features)))
        return logits

    def loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Cross entropy of logits (B, classes, H, W) with labels (B, H, W) int64."""
        return functional.cross_entropy(logits, masks, ignore_index=UNLABELED)

    def in_image(self, logits: Tensor, meta: Mapping[str, Any]) -> Tensor:
        """Logits (classes, H, W) of the network's input as (classes, h, w) of the image that ``meta`` describes.

        What was filled is cut off by the scale of the image. AWML cuts by ``img_shape``, which mmdet's Pad makes that
        of the input: its configs stretch images, so that nothing is filled.
        """
        height, width = meta["ori_shape"][:2]
        scale_x, scale_y = meta["scale_factor"]
        images = logits[None, :, : round(height * scale_y), : round(width * scale_x)]
        return functional.interpolate(images, (height, width), mode="bilinear", align_corners=False)[0]


class YOLOXMultiTask(YOLOX):
    """mmdet's YOLOX with a mask head beside its own."""

    def __init__(self, *args: Any, mask_head: Mapping[str, Any], **kwargs: Any) -> None:
        from mmdet.registry import MODELS

        super().__init__(*args, **kwargs)
        self.mask_head = MODELS.build(mask_head)

    def predict(self, batch_inputs: Tensor, batch_data_samples: Sequence[Any], rescale: bool = True) -> list[Any]:
        """Boxes as mmdet's, and ``pred_sem_seg`` (1, h, w) int64 in pixels of the image."""
        levels = self.extract_feat(batch_inputs)
        boxes = self.bbox_head.predict(levels, batch_data_samples, rescale=rescale)
        samples: list[Any] = self.add_pred_to_datasample(batch_data_samples, boxes)
        for sample, logits in zip(samples, self.mask_head(levels), strict=True):
            labels = self.mask_head.in_image(logits, sample.metainfo).argmax(dim=0, keepdim=True)
            sample.pred_sem_seg = PixelData(sem_seg=labels)
        return samples
