"""mmdet's YOLOX run as a whole: its own pipeline, data preprocessor, model and post-processing."""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from exporter.models.yolox.graph import BOX_COLUMNS, STRIDES, rows_of
from exporter.models.yolox.options import suppression
from exporter.recorded_calls import recorded_calls
from shared.data import ImageSample
from shared.errors import InputError
from shared.lazy import lazy_import
from shared.runs import RawOutputs
from shared.tasks.detection2d import Boxes2D

# Imports mmcv's operators: not before `build_model` has provided them.
mmengine_dataset = lazy_import("mmengine.dataset")


@dataclass(frozen=True)
class ModelInput:
    """An image file, for mmdet's own pipeline to load."""

    path: Path
    device: str = "cpu"

    def to(self, device: str) -> ModelInput:
        """The same, for another device."""
        return ModelInput(self.path, device)

    def prepared(self, model: Any) -> dict[str, Any]:
        """The image as a batch of one, after the training config's test pipeline.

        Raises:
            InputError: the image can't be read.
        """
        with _mmdet_scope():
            pipeline = mmengine_dataset.Compose([dict(step) for step in model.deploy.steps])
            try:
                packed = pipeline({"img_path": str(self.path), "img_id": 0, "instances": []})
            # mmcv reports what it can't read or decode in several ways.
            except (OSError, AttributeError, TypeError, ValueError, AssertionError) as error:
                raise InputError(f"the image can't be read ({error})", where=str(self.path)) from error
        return {"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]}

    def normalized(self, model: Any) -> Tensor:
        """What the network gets: (1, 3, H, W) float32."""
        images: Tensor = model.data_preprocessor(self.prepared(model), training=False)["inputs"]
        return images


def load_input(sample: ImageSample, parameters: Mapping[str, Any]) -> ModelInput:  # noqa: ARG001 (mmdet loads it)
    """The image of a sample."""
    return ModelInput(sample.image)


def answer(model: Any, model_input: ModelInput) -> tuple[RawOutputs, Boxes2D, dict[str, int]]:
    """What mmdet answers: its own pipeline, data preprocessor, model and post-processing, nothing of ours between.

    With the convention ``autoware`` the last steps are Autoware's, made of mmdet's decoding and mmcv's suppression.

    Args:
        model: mmdet's YOLOX.
        model_input: the image file.

    Returns:
        raw: the head's maps as rows, (1, N, 5 + C); boxes: the final boxes in pixels of the image; counters: how many.
    """
    raw, boxes, _ = answered(model, model_input)
    return raw, boxes, {"boxes": len(boxes)}


def answered(model: Any, model_input: ModelInput) -> tuple[RawOutputs, Boxes2D, Any]:
    """Raw outputs and boxes as `answer` gives them, and all that mmdet says of the image (its ``DetDataSample``)."""
    options = model.deploy.options
    settings = suppression(options, model.bbox_head.test_cfg)
    data = model_input.prepared(model)
    with (
        torch.no_grad(),
        _without_grid_warnings(),
        _mmdet_scope(),
        recorded_calls(model.bbox_head) as head_calls,
        _head_settings(model, settings),
    ):
        result = model.test_step(data)[0]
    instances = result.pred_instances.cpu()
    rows = rows_of(head_calls[-1].output)[0].cpu()
    if settings["nms"]["convention"] == "autoware":
        boxes = _autoware_boxes(model, rows, settings, result.metainfo)
    else:
        limit = settings["nms"]["max_boxes"]
        boxes = Boxes2D.build(
            instances.bboxes.numpy()[:limit], instances.labels.numpy()[:limit], instances.scores.numpy()[:limit]
        )
    return _raw_outputs(model, rows, boxes), boxes, result


@contextlib.contextmanager
def _head_settings(model: Any, settings: Mapping[str, Any]) -> Iterator[None]:
    """mmdet's head with the thresholds of `suppression`, while the block runs."""
    head, nms = model.bbox_head, settings["nms"]
    before = head.test_cfg
    head.test_cfg = type(before)(
        {
            **before, "score_thr": settings["score_threshold"],
            "nms": {
                "type": "nms", "iou_threshold": nms["iou_threshold"], "class_agnostic": nms["class_agnostic"],
                "offset": int(nms["convention"] == "megvii"),
            },
        }
    )  # fmt: skip
    try:
        yield
    finally:
        head.test_cfg = before


def _autoware_boxes(model: Any, rows: Tensor, settings: Mapping[str, Any], meta: Mapping[str, Any]) -> Boxes2D:
    """Boxes by Autoware's rules: whole pixels of the input, suppression, image pixels, the image's edge, whole pixels.

    Args:
        model: mmdet's YOLOX.
        rows: (N, 5 + C) raw.
        settings: see `suppression`.
        meta: mmdet's, for the scale and the image's size.
    """
    nms = settings["nms"]
    batched_nms = lazy_import("mmcv.ops").batched_nms
    height, width = meta["img_shape"][:2]
    cells = cells_of(model, height, width)
    priors = torch.cat([cells, cells[:, 2:]], dim=1)
    scores, labels = (rows[:, BOX_COLUMNS:] * rows[:, 4:5]).max(dim=1)
    passed = scores > settings["score_threshold"]
    corners = model.bbox_head._bbox_decode(priors, rows[None, :, :4])[0][passed]
    start = corners[:, :2].trunc()
    whole = torch.cat([start, start + (corners[:, 2:] - corners[:, :2]).trunc()], dim=1)
    nms_cfg = {"type": "nms", "iou_threshold": nms["iou_threshold"], "class_agnostic": nms["class_agnostic"]}
    kept = batched_nms(whole, scores[passed], labels[passed], nms_cfg)[1][: nms["max_boxes"]]
    image_height, image_width = meta["ori_shape"][:2]
    edges = torch.tensor([image_width - 1, image_height - 1] * 2, dtype=whole.dtype)
    image = (whole[kept] / torch.tensor(list(meta["scale_factor"]) * 2, dtype=whole.dtype)).clamp(min=0).minimum(edges)
    start = image[:, :2].trunc()
    final = torch.cat([start, start + (image[:, 2:] - image[:, :2]).trunc()], dim=1)
    return Boxes2D.build(final.numpy(), labels[passed][kept].numpy(), scores[passed][kept].numpy())


def _raw_outputs(model: Any, rows: Tensor, boxes: Boxes2D) -> RawOutputs:
    """What compares with the component's output, by its name: rows, decoded rows, or the scores of the boxes."""
    options = model.deploy.options
    if options.output == "detections":
        limit = suppression(options, model.bbox_head.test_cfg)["nms"]["max_boxes"]
        scores = np.zeros((1, limit), np.float32)
        scores[0, : len(boxes)] = boxes.scores
        return {"detection_scores": scores}
    if options.output == "decoded":
        side = round((len(rows) / sum(stride**-2 for stride in STRIDES)) ** 0.5)
        priors = cells_of(model, side, side)
        corners = model.bbox_head._bbox_decode(torch.cat([priors, priors[:, 2:]], dim=1), rows[None, :, :4])[0]
        centers, sizes = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
        rows = torch.cat([centers, sizes, rows[:, 4:]], dim=1)
    return {"output": rows[None].numpy()}


def cells_of(model: Any, height: int, width: int) -> Tensor:
    """mmdet's own priors: (N, 3) x, y and stride of each row [px]."""
    generator = model.bbox_head.prior_generator
    sizes = [(height // stride, width // stride) for stride in STRIDES]
    with _without_grid_warnings():
        priors: Tensor = torch.cat(generator.grid_priors(sizes, device="cpu", with_stride=True))
    return priors[:, :3]


@contextlib.contextmanager
def _without_grid_warnings() -> Iterator[None]:
    """mmdet makes its grids in a way that PyTorch advises against, at every call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


@contextlib.contextmanager
def _mmdet_scope() -> Iterator[None]:
    """Types are looked up in mmdet's registries while the block runs."""
    from mmengine.registry import DefaultScope

    importlib.import_module("mmdet.datasets.transforms")
    with DefaultScope.overwrite_default_scope("mmdet"):
        yield
