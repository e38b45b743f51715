"""AWML's two tasks run as a whole: mmdet's pipeline and detector, and the labels that the mask head gives to pixels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from exporter.models.yolox import framework as yolox
from exporter.models.yolox.framework import ModelInput
from exporter.recorded_calls import recorded_calls
from shared.runs import RawOutputs
from shared.several_tasks import Answers
from shared.tasks.segmentation2d import ClassMask

#: Of the raw probabilities every so many lines and columns are compared: all would be 150 MB of an image.
COMPARED_EVERY = 4


def answer(model: Any, model_input: ModelInput) -> tuple[RawOutputs, Answers, dict[str, int]]:
    """What the framework answers, see `exporter.models.yolox.framework.answer`.

    Returns:
        raw: rows, and of the mask's probabilities every `COMPARED_EVERY`-th; answers: boxes and mask; counters.
    """
    with recorded_calls(model.mask_head) as calls:
        raw, boxes, result = yolox.answered(model, model_input)
    logits = calls[-1].output[0].cpu()
    probabilities = logits.softmax(dim=0)
    raw["mask"] = probabilities[None, :, ::COMPARED_EVERY, ::COMPARED_EVERY].numpy()
    if model.deploy.options.mask == "autoware":
        mask = _autoware_mask(probabilities, result.metainfo)
    else:
        in_image = model.mask_head.in_image(logits, result.metainfo).softmax(dim=0)
        mask = ClassMask.build(result.pred_sem_seg.sem_seg[0].cpu().numpy(), _margins(in_image).numpy())
    return raw, Answers({"detection2d": boxes, "segmentation2d": mask}), {"boxes": len(boxes)}


def _margins(probabilities: Tensor) -> Tensor:
    """(K, H, W) to (H, W): by how much the likeliest class is ahead of the next."""
    best, second = probabilities.topk(2, dim=0).values
    margins: Tensor = best - second
    return margins


def _autoware_mask(probabilities: Tensor, meta: Any) -> ClassMask:
    """The mask that Autoware's node publishes, in the pixels of the image: each has the label of the one that it falls
    into.
    """
    height, width = meta["ori_shape"][:2]
    sides = torch.tensor([height, width], dtype=torch.float32)
    rows, columns = (sides * (torch.tensor(probabilities.shape[1:]) / sides).min()).int().clamp(min=1).tolist()
    region = probabilities[:, :rows, :columns]
    region = region[:, torch.arange(height) * rows // height][:, :, torch.arange(width) * columns // width]
    return ClassMask.build(region.argmax(dim=0).numpy(), _margins(region).numpy())
