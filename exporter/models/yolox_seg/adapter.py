"""AWML's YOLOX-opt-ELAN with a mask head: one component of two outputs, boxes and a mask.

``yolox``: ``images`` (B, 3, H, W) to ``output`` (B, N, 5 + C), as `exporter.models.yolox` has it, and ``mask``
(B, K, H, W), the probabilities of the K classes of each pixel.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from exporter.models.yolox import adapter as yolox
from exporter.models.yolox.build import build as build_yolox
from exporter.models.yolox.framework import load_input
from exporter.models.yolox_seg.components import components
from exporter.models.yolox_seg.framework import COMPARED_EVERY, answer
from exporter.models.yolox_seg.options import SegOptions
from exporter.options import checked_options
from exporter.training_config import TrainingConfig, classes_of_head
from shared.errors import ConfigError
from shared.several_tasks import qualified_classes

__all__ = ["TASK", "answer", "build", "classes", "components", "load_input", "parameters", "read_options"]

DETECTION, SEGMENTATION = "detection2d", "segmentation2d"
TASK = f"{DETECTION}+{SEGMENTATION}"


read_options = partial(checked_options, SegOptions, model="yolox_seg")


def build(config: TrainingConfig, options: SegOptions) -> Any:
    """The YOLOX of a training config, with random weights, see `exporter.models.yolox.build`."""
    model = build_yolox(config, options, "YOLOXMultiTask")
    key, count = "model.options.mask_classes (or data.classes)", model.mask_head.num_classes
    model.mask_classes = classes_of_head(config, count, options.mask_classes, key, " of masks")
    return model


def classes(model: Any) -> list[str]:
    """Class names of both tasks."""
    return qualified_classes({DETECTION: model.deploy.classes, SEGMENTATION: model.mask_classes})


def parameters(model: Any, config: TrainingConfig, options: SegOptions) -> dict[str, Any]:
    """Those of a YOLOX, and what becomes of the mask.

    Raises:
        ConfigError: Autoware's node would misread the mask, which is asked for as the node reads it.
    """
    of_boxes = yolox.parameters(model, config, options)
    if options.mask == "autoware" and of_boxes["image"]["resize"] == "mmdet_stretched":
        raise ConfigError(
            "mask: autoware reads the mask of an image that keeps its shape; this model's are stretched to a square",
            where=str(config.path),
            hint="set model.options.mask to awml, or keep_ratio=True in Resize if it was trained so",
        )
    return {**of_boxes, "mask": {"convention": options.mask, "compared_every": COMPARED_EVERY}}
