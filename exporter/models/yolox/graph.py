"""YOLOX as a module to export: the head's maps in one tensor, and optionally decoding and suppression in the graph."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

#: Columns of a row before the class scores: x, y, width, height, objectness.
BOX_COLUMNS = 5

#: Of the head's levels [px].
STRIDES = (8, 16, 32)

#: TensorRT's own suppression, a plugin. In a domain of its own, so that no one looks for it among ONNX's operators;
#: TensorRT goes by the name alone.
PLUGIN, PLUGIN_DOMAIN = "EfficientNMS_TRT", "TRT"

_TWO_CORNERS = 0  # ONNX's and the plugin's code for boxes that are given by two corners


class RawRows(nn.Module):
    """Images (B, 3, H, W) to rows (B, N, 5 + C) as Autoware reads them.

    Levels one after another, cells line by line; a row is x, y, width and height as the head gives them, the sigmoid of
    the objectness, the sigmoid of each class score.

    Args:
        model: mmdet's YOLOX.
        relu6_to_relu: leave the upper limit of ReLU6 out. What is computed changes where an activation exceeds 6.
    """

    def __init__(self, model: Any, relu6_to_relu: bool) -> None:
        super().__init__()
        parts = nn.ModuleList([model.backbone, model.neck, model.bbox_head])
        self.backbone, self.neck, self.head = without_limits(parts) if relu6_to_relu else parts

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return rows_of(self.head(self.neck(self.backbone(images))))


def rows_of(maps: Sequence[Sequence[Tensor]]) -> Tensor:
    """Class scores, boxes and objectness of each level (what mmdet's head gives) as rows (B, N, 5 + C)."""
    levels = []
    for scores, boxes, objectness in zip(*maps, strict=True):
        level = torch.cat([boxes, objectness.sigmoid(), scores.sigmoid()], dim=1)
        # Sizes as numbers: only the batch may be dynamic, and a traced graph says so only if the rest is constant.
        columns, height, width = (int(size) for size in level.shape[1:])
        levels.append(level.reshape(-1, columns, height * width))
    return torch.cat(levels, dim=2).transpose(1, 2)


def without_limits(parts: nn.ModuleList) -> nn.ModuleList:
    """A copy with ReLU in place of ReLU6; the model itself stays as it was trained."""
    copied = copy.deepcopy(parts)
    for module in list(copied.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(module, name, nn.ReLU(inplace=child.inplace))
    return copied


class DecodedRows(nn.Module):
    """Images to rows whose boxes are center, width and height in pixels of the input.

    Args:
        raw: the network.
        cells: (N, 3) float32, x, y and stride of each row's cell [px].
    """

    def __init__(self, raw: RawRows, cells: Tensor) -> None:
        super().__init__()
        self.raw = raw
        self.register_buffer("corner", cells[:, :2].clone())
        self.register_buffer("stride", cells[:, 2:].clone())

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        rows = self.raw(images)
        centers = rows[..., :2] * self.stride + self.corner
        sizes = rows[..., 2:4].exp() * self.stride
        return torch.cat([centers, sizes, rows[..., 4:]], dim=2)


class Detections(nn.Module):
    """Images to the best boxes after suppression, in the four tensors that Autoware's node knows.

    ``num_detections`` (B, 1) int32, ``detection_boxes`` (B, M, 4) corners in pixels of the input, ``detection_scores``
    (B, M), ``detection_classes`` (B, M) int32; what is beyond the number of detections is zero. A row can become a box
    of its best class only, as in mmdet.

    Args:
        decoded: the network.
        iou_threshold: boxes of one class that overlap a better one by more are dropped.
        score_threshold: boxes must score higher.
        max_boxes: M.
        class_agnostic: suppress regardless of class.
        plugin: ends in TensorRT's `PLUGIN`, in place of ONNX's NonMaxSuppression, when it is traced for ONNX.
    """

    def __init__(
        self,
        decoded: DecodedRows,
        iou_threshold: float,
        score_threshold: float,
        max_boxes: int,
        class_agnostic: bool,
        plugin: bool = False,
    ) -> None:
        super().__init__()
        self.decoded = decoded
        self.iou_threshold, self.score_threshold = iou_threshold, score_threshold
        self.max_boxes, self.class_agnostic, self.plugin = max_boxes, class_agnostic, plugin

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See the class."""
        rows = self.decoded(images)
        corners = corners_of(rows)
        best, labels = rows[..., BOX_COLUMNS:].max(dim=2)
        best = best * rows[..., 4]
        if self.plugin and _is_traced_for_onnx():
            apply: Any = _OnnxPlugin.apply
            settings = (self.iou_threshold, self.score_threshold, self.max_boxes, self.class_agnostic)
            result: tuple[Tensor, Tensor, Tensor, Tensor] = apply(corners, scores_by_class(rows), *settings)
            return result
        scores = best[:, None] if self.class_agnostic else scores_by_class(rows).transpose(1, 2)
        kept = suppressed(corners, scores, self.iou_threshold, self.score_threshold, self.max_boxes)
        top, position = kept.flatten(1).topk(self.max_boxes, dim=1)
        valid = top > 0
        row = position % rows.shape[1]
        boxes = corners.gather(1, row[..., None].expand(-1, -1, 4))
        return (
            valid.sum(dim=1, keepdim=True).to(torch.int32),
            boxes * valid[..., None].to(boxes.dtype),
            top,
            (labels.gather(1, row) * valid.to(labels.dtype)).to(torch.int32),
        )


def corners_of(rows: Tensor) -> Tensor:
    """Decoded rows (B, N, 5 + C) to the boxes' corners (B, N, 4)."""
    half = rows[..., 2:4] / 2
    return torch.cat([rows[..., :2] - half, rows[..., :2] + half], dim=2)


def scores_by_class(rows: Tensor) -> Tensor:
    """Rows (B, N, 5 + C) to scores (B, N, C): objectness times the best class's score, zero for every other class."""
    best, labels = rows[..., BOX_COLUMNS:].max(dim=2, keepdim=True)
    classes = torch.arange(rows.shape[2] - BOX_COLUMNS, device=rows.device)
    best = best * rows[..., 4:5]
    return torch.where(classes == labels, best, torch.zeros_like(best))


class Proposals(nn.Module):
    """Images to what `PLUGIN` is fed: corners (B, N, 4) and scores (B, N, C).

    Args:
        decoded: the network.
    """

    def __init__(self, decoded: DecodedRows) -> None:
        super().__init__()
        self.decoded = decoded

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        rows = self.decoded(images)
        return corners_of(rows), scores_by_class(rows)


def _is_traced_for_onnx() -> bool:
    return torch.onnx.is_in_onnx_export() and not torch.compiler.is_exporting()


def suppressed(corners: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, max_boxes: int) -> Tensor:
    """Scores with those of suppressed boxes, and of all but the best ``max_boxes``, set to zero.

    Traced for ONNX this is the standard operator NonMaxSuppression, which TensorRT has as a layer of its own
    (INMSLayer); elsewhere the boxes are taken one after another.

    Args:
        corners: (B, N, 4).
        scores: (B, C, N).
        iou_threshold, score_threshold, max_boxes: see `Detections`.
    """
    if _is_traced_for_onnx():
        apply: Any = _OnnxSuppression.apply
        result: Tensor = apply(corners, scores, iou_threshold, score_threshold, max_boxes)
        return result
    return _one_after_another(corners, scores, iou_threshold, score_threshold, max_boxes)


def _one_after_another(
    corners: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, max_boxes: int
) -> Tensor:
    count, classes, rows = scores.shape
    left = torch.where(scores > score_threshold, scores, torch.zeros_like(scores))
    kept = torch.zeros_like(scores).flatten(1)
    areas = (corners[..., 2] - corners[..., 0]) * (corners[..., 3] - corners[..., 1])
    numbers = torch.arange(classes, device=scores.device)[None, :, None]
    for _ in range(max_boxes):
        best, position = left.flatten(1).max(dim=1, keepdim=True)
        kept = kept.scatter(1, position, torch.maximum(kept.gather(1, position), best))
        row, label = position % rows, position // rows
        chosen = corners.gather(1, row[..., None].expand(-1, -1, 4))
        low, high = torch.maximum(corners[..., :2], chosen[..., :2]), torch.minimum(corners[..., 2:], chosen[..., 2:])
        shared = (high - low).clamp(min=0).prod(dim=2)
        overlap = shared > iou_threshold * (areas + areas.gather(1, row) - shared)
        gone = overlap[:, None] & (numbers == label[..., None])
        left = torch.where(gone, torch.zeros_like(left), left)
        # A box without area overlaps nothing, not even itself.
        left = left.flatten(1).scatter(1, position, torch.zeros_like(best)).reshape(count, classes, rows)
    return kept.reshape(count, classes, rows)


class _OnnxSuppression(torch.autograd.Function):
    """`_one_after_another`, written to ONNX as NonMaxSuppression."""

    @staticmethod
    def forward(_ctx: Any, *arguments: Any) -> Tensor:
        """Same arguments and result."""
        return _one_after_another(*arguments)

    @staticmethod
    def symbolic(
        g: Any, corners: Any, scores: Any, iou_threshold: float, score_threshold: float, max_boxes: int
    ) -> Any:
        """The graph: selected indices (K, 3), their scores, scattered over zeros."""
        selected = g.op(
            "NonMaxSuppression",
            corners,
            scores,
            g.op("Constant", value_t=torch.tensor([max_boxes], dtype=torch.int64)),
            g.op("Constant", value_t=torch.tensor([iou_threshold], dtype=torch.float32)),
            g.op("Constant", value_t=torch.tensor([score_threshold], dtype=torch.float32)),
            center_point_box_i=_TWO_CORNERS,
        )
        zeros = g.op("Mul", scores, g.op("Constant", value_t=torch.tensor(0.0)))
        result = g.op("ScatterND", zeros, selected, g.op("GatherND", scores, selected))
        result.setType(scores.type())
        return result


class _OnnxPlugin(torch.autograd.Function):
    """Written to ONNX as `PLUGIN`, which gives the four tensors of `Detections`. Runs in TensorRT alone."""

    @staticmethod
    def forward(
        _ctx: Any, corners: Tensor, scores: Tensor, _iou: float, _score: float, max_boxes: int, _agnostic: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Tensors of the right shapes: all that tracing needs."""
        count = len(scores)
        return (
            torch.zeros(count, 1, dtype=torch.int32),
            corners.new_zeros(count, max_boxes, 4),
            scores.new_zeros(count, max_boxes),
            torch.zeros(count, max_boxes, dtype=torch.int32),
        )

    @staticmethod
    def symbolic(
        g: Any,
        corners: Any,
        scores: Any,
        iou_threshold: float,
        score_threshold: float,
        max_boxes: int,
        class_agnostic: bool,
    ) -> Any:
        """The node, with the attributes of NVIDIA's documentation of the plugin's version 1."""
        results = g.op(
            f"{PLUGIN_DOMAIN}::{PLUGIN}",
            corners,
            scores,
            background_class_i=-1,
            box_coding_i=_TWO_CORNERS,
            class_agnostic_i=int(class_agnostic),
            iou_threshold_f=iou_threshold,
            max_output_boxes_i=max_boxes,
            plugin_version_s="1",
            score_activation_i=0,
            score_threshold_f=score_threshold,
            outputs=4,
        )
        count = corners.type().varyingSizes()[0]  # None where the batch is dynamic
        shapes = ([count, 1], [count, max_boxes, 4], [count, max_boxes], [count, max_boxes])
        for result, shape, dtype in zip(results, shapes, (torch.int32, None, None, torch.int32), strict=True):
            kind = corners.type().with_sizes(shape)
            result.setType(kind if dtype is None else kind.with_dtype(dtype))
        return results
