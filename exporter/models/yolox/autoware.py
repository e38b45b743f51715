"""The bundle of autoware_tensorrt_yolox: the ONNX file, label names, their numbers in Autoware, model parameters.

Built into the node: BGR pixels 0 to 255 without mean and deviation, placed top left on 114; rows of strides 8, 16, 32;
either the head's raw rows, which the node decodes and suppresses, or the four tensors of EfficientNMS_TRT.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from exporter.autoware import (
    EXPORT_AGAIN,
    LABELS,
    Bundle,
    BundleOptions,
    class_names,
    precision,
    refuse_unless,
    threshold_row,
)
from shared.spec import ModelSpec

NAME = "yolox_s_plus_opt"
STRIDES = [8, 16, 32]
FILL = 114
# The node's defaults.
DEFAULT_SCORE, DEFAULT_NMS = 0.35, 0.7
RELU6_CLIP = 6.0

Unit = Annotated[float, Field(ge=0, le=1)]


class MlPackage(BaseModel):
    """The node's model parameters, as its schema has them. All but the first and the last two matter for INT8 alone."""

    model_config = ConfigDict(extra="forbid", strict=True)

    precision: Literal["fp32", "fp16"]
    calibration_algorithm: Literal["Entropy"] = "Entropy"
    quantize_first_layer: bool = False
    quantize_last_layer: bool = False
    profile_per_layer: bool = False
    clip_value: float = RELU6_CLIP
    score_threshold: Unit
    nms_threshold: Unit = DEFAULT_NMS


def bundle(spec: ModelSpec, config: Mapping[str, Any], options: BundleOptions) -> Bundle:
    """The bundle of a YOLOX, see `exporter.autoware`.

    Raises:
        InputError: the node would misread the model; says why and what to export instead.
        UsageError: an option that the node has no value for.
    """
    image: Mapping[str, Any] = spec.parameters.get("image", {})
    refuse_unless(
        image.get("color") == "bgr" and image.get("mean") is None and image.get("std") is None,
        "it feeds blue, green, red from 0 to 255, without mean and deviation",
        hint="train it with the data preprocessor of AWML's configs",
    )
    refuse_unless(image.get("fill") == FILL, f"it fills with {FILL}", hint=f"train it with pad value {FILL}")
    refuse_unless(
        spec.parameters.get("strides") == STRIDES,
        f"it has rows of strides {STRIDES}",
        hint="train it with three levels",
    )
    refuse_unless(
        spec.parameters.get("output") in ("raw", "detections"),
        "it decodes boxes itself, and this one has them decoded",
        hint=f"{EXPORT_AGAIN} raw rows, or with suppression",
    )
    refuse_unless(len(spec.components) == 1, "it has one network", hint=f"{EXPORT_AGAIN} this version")
    names = class_names(spec.classes)
    package = MlPackage(
        precision=precision(config, options.precision, ("fp32", "fp16")),
        score_threshold=threshold_row("", options, DEFAULT_SCORE, 1)[0],
    )
    remap = "".join(f"{name},{LABELS.index(name)}\n" for name in names)
    return Bundle(
        onnx={f"{NAME}.onnx": spec.components[0]},
        parameters={f"ml_package_{NAME}.param.yaml": package.model_dump()},
        texts={"label.txt": "".join(f"{name}\n" for name in names), "roi_remap.csv": f"label_name,label_id\n{remap}"},
        notes=(
            f"launch: model_path: <bundle>/{NAME}.onnx, label_path: <bundle>/label.txt, "
            "roi_remap_path: <bundle>/roi_remap.csv",
            "the node suppresses across classes; the evaluator does so per class",
        ),
    )
