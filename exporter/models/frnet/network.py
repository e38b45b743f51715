"""The network of FRNet (Xu et al., 2023), as AWML has it: its types and names of weights, so that its checkpoints load.

It works on three things at a time: points, frustums (what is in one pixel of a range image) and pixels. After each
stage of the backbone, pixels tell points and points tell pixels what they found (`frustums`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from mmcv.cnn import ConvModule, build_activation_layer
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional

from exporter.models.frnet.frustums import Frustums
from exporter.quantize.residual import ResidualBlock

Config = Mapping[str, Any]

# Residual blocks of each stage, by depth.
_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def _norm(config: Config | None, channels: int, kind: type[nn.Module]) -> nn.Module:
    """A batch norm; that configs synchronize theirs between GPUs (SyncBN) makes no difference after training."""
    options = {name: value for name, value in (config or {}).items() if name in ("eps", "momentum")}
    return kind(channels, **options)


class FrustumFeatureEncoder(BaseModule):
    """Features of points, and of frustums from theirs.

    Args:
        in_channels: of points: x, y, z and others.
        feat_channels: of the layers.
        with_distance: add the distance from the sensor.
        with_cluster_center: add the offset from the mean of the frustum's points.
        norm_cfg: of the batch norms.
        with_pre_norm: normalize what goes in.
        feat_compression: channels of frustums; None: as of the last layer.
    """

    def __init__(
        self,
        in_channels: int = 4,
        feat_channels: Sequence[int] = (),
        with_distance: bool = False,
        with_cluster_center: bool = False,
        norm_cfg: Config | None = None,
        with_pre_norm: bool = False,
        feat_compression: int | None = None,
    ) -> None:
        super().__init__()
        self.with_distance, self.with_cluster_center = with_distance, with_cluster_center
        channels = [in_channels + with_distance + 3 * with_cluster_center, *feat_channels]
        self.pre_norm = _norm(norm_cfg, channels[0], nn.BatchNorm1d) if with_pre_norm else nn.Identity()
        layers: list[nn.Module] = [
            _point_layer(inputs, outputs, norm_cfg) for inputs, outputs in pairwise(channels[:-1])
        ]
        self.ffe_layers = nn.ModuleList([*layers, nn.Linear(channels[-2], channels[-1])])
        self.compression_layers: nn.Module = nn.Identity()
        if feat_compression is not None:
            self.compression_layers = nn.Sequential(nn.Linear(channels[-1], feat_compression), nn.ReLU())

    def forward(self, points: Tensor, frustums: Frustums) -> tuple[list[Tensor], Tensor]:
        """(N, in_channels) points to the features of points (N, C) after each layer, and of frustums (M, C)."""
        parts = [points]
        if self.with_distance:
            parts.append(points[:, :3].square().sum(dim=1, keepdim=True).sqrt())
        if self.with_cluster_center:
            parts.append(points[:, :3] - frustums.to_points(frustums.mean(points[:, :3])))
        features = self.pre_norm(torch.cat(parts, dim=1))
        of_points = []
        for layer in self.ffe_layers:
            features = layer(features)
            of_points.append(features)
        return of_points, self.compression_layers(frustums.largest(features))


class BasicBlock(BaseModule):
    """Two 3x3 convolutions, and what came in added to what comes out."""

    def __init__(
        self, in_channels: int, channels: int, stride: int, dilation: int, norm_cfg: Config | None, act_cfg: Config
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(
            in_channels, channels, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
        )  # fmt: skip
        self.bn1 = _norm(norm_cfg, channels, nn.BatchNorm2d)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = _norm(norm_cfg, channels, nn.BatchNorm2d)
        self.relu = build_activation_layer(dict(act_cfg))
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False),
                _norm(norm_cfg, channels, nn.BatchNorm2d),
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        y: Tensor = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        activated: Tensor = self.relu(y + self.downsample(x))
        return activated

    def residual_block(self) -> ResidualBlock | None:
        """See `exporter.quantize.residual.HasResidualBlock`."""
        if isinstance(self.downsample, nn.Identity):
            return ResidualBlock(self, "downsample", self.conv1, self.conv2)
        return None


class FRNetBackbone(BaseModule):
    """Pixels and points by turns, see the module.

    Args:
        in_channels: of frustums.
        point_in_channels: of points, and of pixels after the stem.
        output_shape: height and width of the range image.
        depth: 18 or 34.
        stem_channels, out_channels: of the stem and of each stage.
        num_stages: as many as ``out_channels``.
        strides, dilations: of each stage.
        fuse_channels: of the layers behind all stages' maps.
        norm_cfg, point_norm_cfg: of the batch norms.
        act_cfg: after convolutions.
        conv_cfg, init_cfg, deploy: without effect here.

    Raises:
        ValueError: a depth that is not available, or lists of different lengths.
    """

    def __init__(
        self,
        in_channels: int,
        point_in_channels: int,
        output_shape: Sequence[int],
        depth: int,
        stem_channels: int = 128,
        num_stages: int = 4,
        out_channels: Sequence[int] = (128, 128, 128, 128),
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        fuse_channels: Sequence[int] = (256, 128),
        conv_cfg: Config | None = None,  # noqa: ARG002
        norm_cfg: Config | None = None,
        point_norm_cfg: Config | None = None,
        act_cfg: Config | None = None,
        init_cfg: Config | None = None,  # noqa: ARG002
        deploy: bool = False,  # noqa: ARG002
    ) -> None:
        super().__init__()
        if depth not in _BLOCKS:
            raise ValueError(f"depth {depth} is not available, only {', '.join(map(str, _BLOCKS))}")
        blocks = _BLOCKS[depth]
        if {len(out_channels), len(strides), len(dilations), num_stages} != {len(blocks)}:
            raise ValueError(f"a backbone of depth {depth} has {len(blocks)} stages")
        act = act_cfg or {"type": "LeakyReLU"}
        layers = _Layers(norm_cfg, act)
        self.size = (int(output_shape[0]), int(output_shape[1]))
        self.stem = nn.Sequential(
            *layers.convolution(in_channels, stem_channels // 2),
            *layers.convolution(stem_channels // 2, stem_channels),
            *layers.convolution(stem_channels, stem_channels),
        )
        self.point_stem = _point_layer(point_in_channels, stem_channels, point_norm_cfg)
        self.fusion_stem = layers.convolution(2 * stem_channels, stem_channels)
        self.point_fusion_layers, self.pixel_fusion_layers = nn.ModuleList(), nn.ModuleList()
        self.attention_layers = nn.ModuleList()
        self.strides: list[int] = []
        channels, overall = stem_channels, 1
        for number, (planes, stride) in enumerate(zip(out_channels, strides, strict=True), start=1):
            stage = [BasicBlock(channels, planes, stride, dilations[number - 1], norm_cfg, act)]
            stage += [
                BasicBlock(planes, planes, 1, dilations[number - 1], norm_cfg, act)
                for _ in range(blocks[number - 1] - 1)
            ]
            self.add_module(f"layer{number}", nn.Sequential(*stage))
            self.point_fusion_layers.append(_point_layer(channels + planes, planes, point_norm_cfg))
            self.pixel_fusion_layers.append(layers.convolution(2 * planes, planes))
            self.attention_layers.append(layers.attention(planes))
            channels, overall = planes, overall * stride
            self.strides.append(overall)
        channels = stem_channels + sum(out_channels)
        self.fusions = len(fuse_channels)
        for number, outputs in enumerate(fuse_channels, start=1):
            fuse = ConvModule(
                channels, outputs, 3, padding=1, norm_cfg={**(norm_cfg or {}), "type": "BN"}, act_cfg=dict(act)
            )
            self.add_module(f"fuse_layer{number}", fuse)
            self.add_module(f"point_fuse_layer{number}", _point_layer(channels, outputs, point_norm_cfg))
            channels = outputs

    def forward(self, points: Tensor, features: Tensor, frustums: Frustums) -> tuple[Tensor, Tensor]:
        """Features of points (N, C) and of frustums (M, in_channels) to those of points and of pixels (1, C, H, W)."""
        pixels = self.stem(frustums.to_pixels(features, 1))
        points = self.point_stem(torch.cat([frustums.pixels_of_points(pixels, 1), points], dim=1))
        told = frustums.to_pixels(frustums.largest(points), 1)
        pixels = self.fusion_stem(torch.cat([told, pixels], dim=1))
        all_pixels, all_points = [pixels], [points]
        for stage, stride in enumerate(self.strides):
            pixels = self.get_submodule(f"layer{stage + 1}")(pixels)
            seen = frustums.pixels_of_points(pixels, stride)
            points = self.point_fusion_layers[stage](torch.cat([seen, points], dim=1))
            told = frustums.to_pixels(frustums.largest(points), stride)
            fused = self.pixel_fusion_layers[stage](torch.cat([told, pixels], dim=1))
            pixels = fused * self.attention_layers[stage](fused) + pixels
            all_pixels.append(pixels)
            all_points.append(points)
        pixels = torch.cat(
            [
                functional.interpolate(each, size=self.size, mode="bilinear", align_corners=True)
                if each.shape[2:] != self.size
                else each
                for each in all_pixels
            ],
            dim=1,
        )
        points = torch.cat(all_points, dim=1)
        for number in range(1, self.fusions + 1):
            pixels = self.get_submodule(f"fuse_layer{number}")(pixels)
            points = self.get_submodule(f"point_fuse_layer{number}")(points)
        return points, pixels


class _Layers:
    """Makes convolutions with the backbone's norm and activation."""

    def __init__(self, norm_cfg: Config | None, act_cfg: Config) -> None:
        self._norm, self._act = norm_cfg, act_cfg

    def convolution(self, inputs: int, outputs: int) -> nn.Sequential:
        """3x3, batch norm, activation."""
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            _norm(self._norm, outputs, nn.BatchNorm2d),
            build_activation_layer(dict(self._act)),
        )

    def attention(self, channels: int) -> nn.Sequential:
        """Two convolutions to weights from 0 to 1."""
        last = [
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), _norm(self._norm, channels, nn.BatchNorm2d)
        ]  # fmt: skip
        return nn.Sequential(*self.convolution(channels, channels), *last, nn.Sigmoid())


def _point_layer(inputs: int, outputs: int, norm_cfg: Config | None) -> nn.Sequential:
    """A layer of each point for itself."""
    return nn.Sequential(
        nn.Linear(inputs, outputs, bias=False), _norm(norm_cfg, outputs, nn.BatchNorm1d), nn.ReLU()
    )  # fmt: skip


class FRHead(BaseModule):
    """From features to a logit for each class of each point.

    Args:
        in_channels: of pixels.
        middle_channels: of the layers: the first as the backbone's features of points, which are added after it, the
            others as those after the encoder's layers but the last, from the last to the first.
        num_classes: C.
        channels: of the last layer.
        ignore_index: label of points that are not judged.
        norm_cfg: of the batch norms.
        training_only: losses and the like, without effect here.
    """

    def __init__(
        self,
        in_channels: int,
        middle_channels: Sequence[int],
        num_classes: int,
        channels: int,
        ignore_index: int = 255,
        norm_cfg: Config | None = None,
        **training_only: Any,  # noqa: ARG002
    ) -> None:
        super().__init__()
        self.num_classes, self.ignore_index = num_classes, ignore_index
        sizes = [in_channels, *middle_channels]
        self.mlps = nn.ModuleList(_point_layer(inputs, outputs, norm_cfg) for inputs, outputs in pairwise(sizes))
        self.cls_seg = nn.Linear(channels, num_classes)

    def forward(self, encoded: list[Tensor], points: Tensor, pixels: Tensor, frustums: Frustums) -> Tensor:
        """What the encoder and the backbone found, to (N, C) logits."""
        features = frustums.pixels_of_points(pixels, 1)
        for mlp, found in zip(self.mlps, [points, *encoded[-2::-1]], strict=False):
            features = mlp(features) + found
        logits: Tensor = self.cls_seg(features)
        return logits


class FrustumRangePreprocessor(nn.Module):
    """The range image that frustums are pixels of; what AWML's class of this name does is in `framework`.

    Args:
        H, W: height and width.
        fov_up, fov_down: elevations of its edges [deg].
        ignore_index: label of points that are not judged.
    """

    def __init__(self, H: int, W: int, fov_up: float, fov_down: float, ignore_index: int = 255) -> None:  # noqa: N803
        super().__init__()
        self.size = (int(H), int(W))
        self.fov_up, self.fov_down, self.ignore_index = float(fov_up), float(fov_down), ignore_index


class FRNet(BaseModule):
    """The whole network of one frame.

    Args:
        data_preprocessor, voxel_encoder, backbone, decode_head: its parts.
        training_only: auxiliary heads and the like, without effect here.
    """

    def __init__(
        self,
        data_preprocessor: Config,
        voxel_encoder: Config,
        backbone: Config,
        decode_head: Config,
        **training_only: Any,  # noqa: ARG002
    ) -> None:
        super().__init__()
        parts = (data_preprocessor, voxel_encoder, backbone, decode_head)
        self.data_preprocessor, self.voxel_encoder, self.backbone, self.decode_head = map(MODELS.build, parts)

    def forward(self, points: Tensor, frustums: Frustums) -> Tensor:
        """(N, 4) points in the sensor's frame to (N, C) logits."""
        encoded, features = self.voxel_encoder(points, frustums)
        points, pixels = self.backbone(encoded[-1], features, frustums)
        logits: Tensor = self.decode_head(encoded, points, pixels, frustums)
        return logits
