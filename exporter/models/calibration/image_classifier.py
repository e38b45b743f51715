"""mmpretrain's ImageClassifier with a ResNet, for where mmpretrain can't be imported.

mmpretrain needs torchvision, which has no build for every torch that this tool runs with. Its ResNet is mmdet's with
other defaults, and the rest is a mean and a linear layer: built from mmdet's ResNet, the weights have the same names
and shapes in the same order, and the outputs are equal bit for bit (compared with mmpretrain 1.2.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from exporter.training_only import short_name

# Arguments of mmpretrain's ResNet that mmdet's has under the same name, with mmpretrain's defaults.
_BACKBONE = {
    "in_channels": 3,
    "stem_channels": 64,
    "base_channels": 64,
    "num_stages": 4,
    "strides": (1, 2, 2, 2),
    "dilations": (1, 1, 1, 1),
    "style": "pytorch",
    "deep_stem": False,
    "avg_down": False,
    "norm_eval": False,
    "zero_init_residual": True,
}
# Those that change nothing in inference, or that have a single sensible value here.
_WITHOUT_EFFECT = {"type", "depth", "out_indices", "frozen_stages", "conv_cfg", "norm_cfg", "with_cp", "init_cfg"}
_HEAD_WITHOUT_EFFECT = {"type", "loss", "topk", "cal_acc", "init_cfg"}


class LinearHead(nn.Module):
    """mmpretrain's LinearClsHead without its loss."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(in_channels, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C) to logits (B, classes)."""
        logits: Tensor = self.fc(features)
        return logits


class ImageClassifier(nn.Module):
    """ResNet, mean over the last feature map, linear layer."""

    def __init__(self, backbone: nn.Module, head: LinearHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to logits (B, classes)."""
        features = self.backbone(images)[-1]
        logits: Tensor = self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(features, 1), 1))
        return logits


def build_image_classifier(section: Mapping[str, Any]) -> ImageClassifier:
    """The classifier of the ``model`` section of an mmpretrain config, with random weights.

    Raises:
        ValueError: something in it is not what stands in for mmpretrain here; says what.
    """
    from mmdet.models.backbones.resnet import ResNet

    backbone, neck, head = section["backbone"], section.get("neck") or {}, section["head"]
    for part, allowed in ((backbone, "ResNet"), (neck, "GlobalAveragePooling"), (head, "LinearClsHead")):
        name = short_name(part.get("type", "none"))
        if name != allowed:
            raise ValueError(f"has a {name} where {allowed} is expected")
    _refuse_unknown("backbone", backbone, {*_BACKBONE, *_WITHOUT_EFFECT})
    _refuse_unknown("head", head, {"num_classes", "in_channels", *_HEAD_WITHOUT_EFFECT})
    settings = {name: backbone.get(name, default) for name, default in _BACKBONE.items()}
    stages = int(settings["num_stages"])
    if tuple(backbone.get("out_indices", (stages - 1,))) != (stages - 1,):
        raise ValueError(f"backbone.out_indices is {backbone['out_indices']}; only the last stage can be classified")
    norm = dict(backbone.get("norm_cfg") or {"type": "BN", "requires_grad": True})
    network = ResNet(depth=backbone["depth"], out_indices=(stages - 1,), norm_cfg=norm, **settings)
    return ImageClassifier(network, LinearHead(int(head["in_channels"]), int(head["num_classes"])))


def _refuse_unknown(part: str, section: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(section) - known)
    if unknown:
        raise ValueError(f"{part}.{unknown[0]} is not supported without mmpretrain")
