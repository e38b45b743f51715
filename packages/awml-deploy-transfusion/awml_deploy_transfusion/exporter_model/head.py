"""TransFusion's head, with the weight names of AWML's: the best cells of a heatmap become queries of a transformer."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule, build_conv_layer
from mmdet3d.models.dense_heads.centerpoint_head import SeparateHead
from mmdet3d.models.layers import circle_nms
from mmdet3d.registry import MODELS, TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn import functional

from awml_deploy_transfusion.exporter_model.cells import centers_of_cells, local_maxima
from awml_deploy_transfusion.exporter_model.supervision import Supervision, Truth
from awml_deploy_transfusion.groups import MOST_KEPT, SUPPRESSED


class TransFusionHead(nn.Module):
    """The head of a TransFusion-L, as far as inference needs it.

    Args:
        num_proposals: Q, queries of a sample.
        in_channels: of the map.
        hidden_channel: of the queries.
        num_classes: classes.
        num_decoder_layers: decoder layers.
        decoder_layer: config of one.
        nms_kernel_size: width of the neighborhood in which a cell must have the best score [cells].
        bn_momentum: of all batch norms.
        common_heads: what is said of a query, to channels and convolutions.
        num_heatmap_convs: convolutions of the classes' scores.
        conv_cfg, norm_cfg, bias: of the layers that say it.
        loss_cls: classes are scored one by one (``use_sigmoid``), or one more stands for none of them.
        test_cfg: ``grid_size``, ``out_size_factor``, ``dataset``, ``nms_type``.
        bbox_coder: config of the coder.
        training: what only training needs: other losses, targets, whether every decoder layer is supervised.
    """

    def __init__(
        self,
        num_proposals: int = 128,
        in_channels: int = 384,
        hidden_channel: int = 128,
        num_classes: int = 4,
        num_decoder_layers: int = 3,
        decoder_layer: Mapping[str, Any] | None = None,
        nms_kernel_size: int = 1,
        bn_momentum: float = 0.1,
        common_heads: Mapping[str, Sequence[int]] | None = None,
        num_heatmap_convs: int = 2,
        conv_cfg: Mapping[str, Any] | None = None,
        norm_cfg: Mapping[str, Any] | None = None,
        bias: str = "auto",
        loss_cls: Mapping[str, Any] | None = None,
        test_cfg: Any = None,
        bbox_coder: Mapping[str, Any] | None = None,
        **training: Any,  # noqa: ARG002
    ) -> None:
        super().__init__()
        of_conv, of_norm = dict(conv_cfg or {"type": "Conv1d"}), dict(norm_cfg or {"type": "BN1d"})
        self.num_classes = num_classes if (loss_cls or {}).get("use_sigmoid", False) else num_classes + 1
        self.num_proposals, self.nms_kernel_size = num_proposals, nms_kernel_size
        self.test_cfg = test_cfg
        self.bbox_coder = TASK_UTILS.build(bbox_coder)
        plain = {"type": "Conv2d"}
        self.shared_conv = build_conv_layer(plain, in_channels, hidden_channel, kernel_size=3, padding=1, bias=bias)
        self.heatmap_head = nn.Sequential(
            ConvModule(
                hidden_channel,
                hidden_channel,
                kernel_size=3,
                padding=1,
                bias=bias,
                conv_cfg=plain,
                norm_cfg={"type": "BN2d"},
            ),
            build_conv_layer(plain, hidden_channel, num_classes, kernel_size=3, padding=1, bias=bias),
        )
        self.class_encoding = nn.Conv1d(num_classes, hidden_channel, 1)
        self.decoder = nn.ModuleList(MODELS.build(copy.deepcopy(decoder_layer)) for _ in range(num_decoder_layers))
        said = {**(common_heads or {}), "heatmap": (self.num_classes, num_heatmap_convs)}
        self.prediction_heads = nn.ModuleList(
            SeparateHead(hidden_channel, dict(said), conv_cfg=of_conv, norm_cfg=of_norm, bias=bias)
            for _ in range(num_decoder_layers)
        )
        for module in self.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.momentum = bn_momentum
        columns, rows = (int(cells) // test_cfg["out_size_factor"] for cells in test_cfg["grid_size"][:2])
        self.bev_pos = centers_of_cells(rows, columns)
        self.supervision: Supervision | None = None

    def forward(self, feats: Sequence[Tensor], metas: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Tensor]]]:  # noqa: ARG002 (as mmdet3d calls heads)
        """What the head says of the queries of each sample.

        Args:
            feats: one map, (B, C, H, W) float32.
            metas: of the samples; unused.

        Returns:
            A list of one dict in a tuple: by name (B, channels, Q) of all decoder layers, one after the other along the
            last axis; ``query_heatmap_score`` (B, classes, Q), and ``query_labels`` (B, Q) int64, the classes that the
            queries were chosen for; ``dense_heatmap`` (B, classes, H, W) logits.
        """
        (features,) = feats
        features = self.shared_conv(features)
        flat = features.flatten(2)
        logits = self.heatmap_head(features)
        heatmap = local_maxima(logits.detach().sigmoid(), self.nms_kernel_size).flatten(2)
        cells_per_class = heatmap.shape[-1]
        best = heatmap.flatten(1).sort(dim=-1, descending=True, stable=True).indices[:, : self.num_proposals]
        labels, cells = best // cells_per_class, best % cells_per_class
        one_hot = functional.one_hot(labels, self.num_classes).transpose(1, 2).float()
        query = flat.gather(2, cells[:, None].expand(-1, flat.shape[1], -1)) + self.class_encoding(one_hot)
        map_positions = self.bev_pos.to(features).expand(len(features), -1, -1)
        positions = map_positions.gather(1, cells[..., None].expand(-1, -1, 2))
        layers = []
        for layer, says in zip(self.decoder, self.prediction_heads, strict=True):
            query = layer(query, key=flat, query_pos=positions, key_pos=map_positions)
            said = says(query)
            said["center"] = said["center"] + positions.transpose(1, 2)
            positions = said["center"].detach().transpose(1, 2)
            layers.append(said)
        result = {name: torch.cat([said[name] for said in layers], dim=-1) for name in layers[0]}
        result["query_heatmap_score"] = heatmap.gather(2, cells[:, None].expand(-1, heatmap.shape[1], -1))
        result["query_labels"] = labels
        result["dense_heatmap"] = logits
        return ([result],)

    def loss(self, feats: Sequence[Tensor], samples: Sequence[Any]) -> dict[str, Tensor]:
        """Losses of a batch, as mmdet3d calls heads in training; ``supervision`` must be set.

        Args:
            feats: one map, (B, C, H, W) float32.
            samples: mmdet3d's, with ``gt_instances_3d``.
        """
        if self.supervision is None:
            raise RuntimeError("exporter_model.training.prepare comes first")
        said = self(feats, [sample.metainfo for sample in samples])[0][0]
        objects = [sample.gt_instances_3d for sample in samples]
        truths = [Truth(each.bboxes_3d.tensor, each.labels_3d) for each in objects]
        return self.supervision.losses(self, said, truths)

    def predict(self, feats: Sequence[Tensor], metas: Sequence[Mapping[str, Any]]) -> list[InstanceData]:
        """Boxes of each sample.

        Args:
            feats: one map, (B, C, H, W) float32.
            metas: of the samples, with ``box_type_3d``.
        """
        said = self(feats, metas)[0][0]
        last = {name: values[..., -self.num_proposals :] for name, values in said.items() if name != "dense_heatmap"}
        decoded = self.bbox_coder.decode(
            self.scores(last), last["rot"], last["dim"], last["center"], last["height"], last.get("vel")
        )
        results = []
        for sample, meta in zip(decoded, metas, strict=True):
            kept = self._not_suppressed(sample)
            boxes = sample["bboxes"][kept]
            results.append(
                InstanceData(
                    bboxes_3d=meta["box_type_3d"](boxes, box_dim=boxes.shape[-1]),
                    scores_3d=sample["scores"][kept],
                    labels_3d=sample["labels"][kept].int(),
                )
            )
        return results

    def scores(self, said: Mapping[str, Tensor]) -> Tensor:
        """(B, classes, Q): the score of the query times that of the cell, for the class that the query was chosen for.

        Args:
            said: what `forward` gave, of the last decoder layer alone.
        """
        one_hot = functional.one_hot(said["query_labels"], self.num_classes).transpose(1, 2)
        return said["heatmap"].sigmoid() * said["query_heatmap_score"] * one_hot

    def _not_suppressed(self, sample: Mapping[str, Tensor]) -> Tensor:
        """(N,) bool: boxes that circle suppression keeps."""
        kept = torch.ones_like(sample["labels"], dtype=torch.bool)
        if self.test_cfg["nms_type"] is None:
            return kept
        for label, radius in SUPPRESSED[self.test_cfg["dataset"]].items():
            boxes = torch.nonzero(sample["labels"] == label)[:, 0]
            places = torch.cat([sample["bboxes"][boxes, :2], sample["scores"][boxes, None]], dim=1)
            kept[boxes] = False
            kept[boxes[circle_nms(places.detach().cpu().numpy(), radius, MOST_KEPT)]] = True
        return kept
