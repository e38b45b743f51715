"""What a TransFusion is trained with: AWML's targets of the heatmap and of the queries, and its three losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from awml_deploy_transfusion.exporter_model.assignment import Costs, assigned
from shared.errors import ConfigError
from shared.lazy import lazy_import

# Imports mmcv's operators: not before `build_model` has provided them.
mmdet3d_utils = lazy_import("mmdet3d.models.utils")

_SETTINGS = (
    "assigner", "grid_size", "voxel_size", "point_cloud_range", "out_size_factor", "gaussian_overlap", "min_radius",
    "code_weights",
)  # fmt: skip
_BOX_PARTS = ("center", "height", "dim", "rot", "vel")


@dataclass(frozen=True)
class Truth:
    """The objects of a frame.

    Attributes:
        boxes: (M, 9) float32: x, y, z of the bottom face's center, l, w, h [m], yaw [rad], vx, vy [m/s].
        labels: (M,) int64.
    """

    boxes: Tensor
    labels: Tensor


class Supervision:
    """The losses of a training config.

    Args:
        head: of the TransFusion.
        section: ``pts_bbox_head`` of the training config.
        settings: its ``train_cfg.pts``.
        where: the training config, for errors.

    Raises:
        ConfigError: settings are missing, or of a kind that can't be trained here.
    """

    def __init__(self, head: Any, section: Mapping[str, Any], settings: Mapping[str, Any], where: str) -> None:
        from mmdet.registry import MODELS

        missing = [key for key in _SETTINGS if key not in settings]
        if missing:
            raise ConfigError(
                f"model.train_cfg.pts lacks {', '.join(missing)}, without which there are no targets",
                where=where,
                hint="give the config that the model was trained with as model.config",
            )
        self.settings = settings
        self.costs = Costs.from_config(settings["assigner"], where)
        self.layers = len(head.decoder) if section.get("auxiliary", True) else 1
        self.of_classes, self.of_boxes, self.of_heatmap = (
            MODELS.build(dict(section[name])) for name in ("loss_cls", "loss_bbox", "loss_heatmap")
        )

    def losses(self, head: Any, said: Mapping[str, Tensor], truths: Sequence[Truth]) -> dict[str, Tensor]:
        """The losses of a batch, by name; scalars.

        Args:
            head: of the TransFusion.
            said: what it said of the batch.
            truths: of its frames.
        """
        truths = [self._in_range(truth) for truth in truths]
        logits = said["dense_heatmap"].float()
        heatmaps = torch.stack([self.heatmap(truth, logits.shape[1:]) for truth in truths]).to(logits)
        scores = logits.sigmoid().clamp(1e-4, 1 - 1e-4)
        centers = max(float(heatmaps.eq(1).sum()), 1.0)
        losses = {"loss_heatmap": self.of_heatmap(scores, heatmaps, avg_factor=centers)}
        for number in range(-self.layers, 0):
            last = said["center"].shape[-1] + (number + 1) * head.num_proposals
            layer = {
                name: said[name][..., last - head.num_proposals : last].float()
                for name in ("heatmap", *_BOX_PARTS)
                if name in said
            }
            prefix = f"layer_{number if number == -1 else number + self.layers}"
            of_classes, of_boxes = self._of_queries(head, layer, truths)
            losses |= {f"{prefix}_loss_cls": of_classes, f"{prefix}_loss_bbox": of_boxes}
        return losses

    def heatmap(self, truth: Truth, shape: Sequence[int]) -> Tensor:
        """(classes, rows, columns): 1 at the objects' cells, falling around them as a Gaussian."""
        heatmap = torch.zeros(*shape)
        cell, low = self._cell(), self.settings["point_cloud_range"][:2]
        places = ((truth.boxes[:, :2].cpu() - torch.tensor(low)) / torch.tensor(cell)).int()
        sizes = (truth.boxes[:, 3:5].cpu() / torch.tensor(cell)).tolist()
        for place, (along, across), label in zip(places, sizes, truth.labels.tolist(), strict=True):
            radius = mmdet3d_utils.gaussian_radius(
                (torch.tensor(across), torch.tensor(along)), min_overlap=self.settings["gaussian_overlap"]
            )
            radius = max(int(self.settings["min_radius"]), int(radius))
            mmdet3d_utils.draw_heatmap_gaussian(heatmap[label], place, radius)
        return heatmap

    def _cell(self) -> list[float]:
        """Sides of a cell of the map [m]."""
        return [float(size) * self.settings["out_size_factor"] for size in self.settings["voxel_size"][:2]]

    def _in_range(self, truth: Truth) -> Truth:
        """The objects that have a cell: AWML's training pipeline filters the others out."""
        low, high = truth.boxes.new_tensor(self.settings["point_cloud_range"]).view(2, 3)[:, :2]
        inside = ((truth.boxes[:, :2] >= low) & (truth.boxes[:, :2] < high)).all(dim=1)
        return Truth(truth.boxes[inside], truth.labels[inside])

    def _of_queries(self, head: Any, layer: Mapping[str, Tensor], truths: Sequence[Truth]) -> tuple[Tensor, Tensor]:
        """The losses of what one decoder layer says: of the classes, and of the boxes."""
        logits = layer["heatmap"].transpose(1, 2)
        values = torch.cat([layer[name] for name in _BOX_PARTS if name in layer], dim=1).transpose(1, 2)
        boxes = head.bbox_coder.boxes(*(layer.get(name) for name in ("rot", "dim", "center", "height", "vel"))).detach()
        labels = torch.full(logits.shape[:2], head.num_classes, device=logits.device)
        targets, weights = torch.zeros_like(values), torch.zeros_like(values)
        code_weights = values.new_tensor(self.settings["code_weights"])
        pairs = 0
        for frame, truth in enumerate(truths):
            if not len(truth.boxes):
                continue
            queries, objects = assigned(
                logits[frame].detach(), boxes[frame], truth.boxes, truth.labels, self.costs,
                self.settings["point_cloud_range"],
            )  # fmt: skip
            labels[frame, queries] = truth.labels[objects]
            targets[frame, queries] = self._coded(truth.boxes[objects])[:, : values.shape[2]]
            weights[frame, queries] = code_weights[: values.shape[2]]
            pairs += len(queries)
        of_classes = self.of_classes(
            logits.reshape(-1, head.num_classes), labels.flatten(), labels.new_ones(labels.numel()).float(),
            avg_factor=max(pairs, 1),
        )  # fmt: skip
        return of_classes, self.of_boxes(values, targets, weights, avg_factor=max(pairs, 1))

    def _coded(self, boxes: Tensor) -> Tensor:
        """(K, 10): objects as the head says them, in the order of its parts."""
        low = boxes.new_tensor(self.settings["point_cloud_range"][:2])
        places = (boxes[:, :2] - low) / boxes.new_tensor(self._cell())
        center_z, yaws = boxes[:, 2:3] + boxes[:, 5:6] * 0.5, boxes[:, 6:7]
        return torch.cat([places, center_z, boxes[:, 3:6].log(), yaws.sin(), yaws.cos(), boxes[:, 7:9]], dim=1)
