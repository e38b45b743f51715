"""Options of a YOLOX's deploy config, and the suppression that they amount to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from exporter.options import ModelOptions
from shared.errors import ConfigError

# The boxes that Autoware's node makes room for, and what AWML exports with.
_MAX_BOXES = 100
# Thresholds of score and overlap of those conventions that have their own: Autoware's parameters score_threshold and
# nms_threshold of its node, Megvii's those of its demo for ONNX files.
_THRESHOLDS = {"autoware": (0.35, 0.7), "megvii": (0.1, 0.45)}

Three = tuple[float, float, float]


class Nms(ModelOptions):
    """``model.options.nms``; what is left out is the training config's, or the convention's.

    Attributes:
        convention: ``mmdet`` compares boxes of one class in pixels of the image; ``megvii`` compares all, each taken
            for one pixel wider and higher; ``autoware`` compares all, in whole pixels of the input, and cuts boxes off
            at the image's edge. Everything else follows from it.
        score_threshold: on objectness times class score. mmdet: ``test_cfg.score_thr``; megvii: 0.1; autoware: 0.35.
        iou_threshold: mmdet: ``test_cfg.nms.iou_threshold``; megvii: 0.45; autoware: 0.7.
        class_agnostic: compare boxes of different classes. mmdet: false; megvii and autoware: true.
        max_boxes: keep the best so many; None: all. In the graph: 100.
        operator: what suppresses in the graph: ONNX's, or the plugin of TensorRT up to 10.11, which nothing else runs.
    """

    convention: Literal["mmdet", "megvii", "autoware"] = "mmdet"
    score_threshold: float | None = Field(default=None, ge=0, lt=1)
    iou_threshold: float | None = Field(default=None, gt=0, le=1)
    class_agnostic: bool | None = None
    max_boxes: int | None = Field(default=None, gt=0)
    operator: Literal["NonMaxSuppression", "EfficientNMS_TRT"] = "NonMaxSuppression"


class Image(ModelOptions):
    """``model.options.image``: the input of an ONNX file that comes without a training config.

    Attributes:
        color: order of the channels, ``bgr`` or ``rgb``.
        mean, std: on the scale of 0-255; left out: values stay 0-255.
        fill: gray level beside the image.
        resize: ``mmdet``, ``megvii`` or ``autoware``, see `runtime.models.yolox.letterbox`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    color: Literal["bgr", "rgb"]
    mean: Three | None = None
    std: Three | None = None
    fill: int = Field(default=114, ge=0, le=255, strict=True)
    resize: Literal["mmdet", "megvii", "autoware"] = "megvii"

    @model_validator(mode="after")
    def _both_or_none(self) -> Image:
        if (self.mean is None) != (self.std is None) or (self.std is not None and min(self.std) <= 0):
            raise ValueError("mean and std go together, and std is positive")
        return self


class Options(ModelOptions):
    """``model.options`` of the deploy config.

    Attributes:
        batch_size: images per call, or ``dynamic``. Autoware's node expects one per camera.
        output: ``raw`` rows, ``decoded`` rows, or ``detections`` after suppression in the graph.
        relu6_to_relu: export ReLU in place of ReLU6. The verification compares with the model as it was trained.
        nms: see `Nms`.
        image, classes: for ONNX files made elsewhere.
    """

    batch_size: int | Literal["dynamic"] = 1
    output: Literal["raw", "decoded", "detections"] = "raw"
    relu6_to_relu: bool = False
    nms: Nms = Nms()
    image: Image | None = Field(default=None, strict=False)
    classes: tuple[str, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _positive(self) -> Options:
        if isinstance(self.batch_size, int) and self.batch_size < 1:
            raise ValueError("batch_size should be at least 1, or dynamic")
        if self.nms.operator == "EfficientNMS_TRT" and self.output != "detections":
            raise ValueError("nms.operator EfficientNMS_TRT suppresses in the graph: set output to detections")
        if self.nms.convention == "megvii" and self.output == "detections":
            raise ValueError(
                "nms.convention megvii takes boxes for a pixel larger, which nothing in a graph does: set output to raw"
            )
        return self


def suppression(options: Options, trained: Mapping[str, Any]) -> dict[str, Any]:
    """``score_threshold`` and ``nms``: the options', else those of ``test_cfg`` or of the convention.

    Args:
        options: see `Options`.
        trained: ``test_cfg`` of the model; empty for an ONNX file made elsewhere.

    Raises:
        ConfigError: nothing says a threshold.
    """
    nms = options.nms
    of_config = trained.get("score_thr"), (trained.get("nms") or {}).get("iou_threshold")
    score, iou = _THRESHOLDS.get(nms.convention, of_config)
    thresholds = {
        "score_threshold": score if nms.score_threshold is None else nms.score_threshold,
        "iou_threshold": iou if nms.iou_threshold is None else nms.iou_threshold,
    }
    for name, value in thresholds.items():
        if value is None:
            raise ConfigError("is missing, and no training config says it", where=f"model.options.nms.{name}")
    limit = _MAX_BOXES if options.output == "detections" else None
    return {
        "score_threshold": float(thresholds["score_threshold"] or 0.0),
        "nms": {
            "convention": nms.convention,
            "iou_threshold": float(thresholds["iou_threshold"] or 0.0),
            "class_agnostic": nms.convention != "mmdet" if nms.class_agnostic is None else nms.class_agnostic,
            "max_boxes": nms.max_boxes or limit,
        },
    }
