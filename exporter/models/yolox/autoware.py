"""The bundle of autoware_tensorrt_yolox: the ONNX file, label names, their numbers in Autoware, the node's parameters.

Built into the node: BGR pixels 0 to 255 without mean and deviation, placed top left on 114; rows of strides 8, 16, 32;
either the head's raw rows, which the node decodes and suppresses, or the four tensors of EfficientNMS_TRT.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from exporter.autoware import Bundle, BundleOptions, Precision, precision, threshold_row, typed_name
from exporter.autoware.labels import LABELS, labels_of
from exporter.autoware.refusals import EXPORT_AGAIN, Refusals
from shared.spec import ModelSpec

NODE = "autoware_tensorrt_yolox"
# The file names that the launch file of this configuration defaults to.
NAME = "yolox_s_plus_opt"
STRIDES = [8, 16, 32]
FILL = 114
# The node's defaults.
DEFAULT_SCORE, DEFAULT_NMS = 0.35, 0.7
RELU6_CLIP = 6.0

Unit = Annotated[float, Field(ge=0, le=1)]


class NodeParameters(BaseModel):
    """The node's parameter file. What is not given below is its default, or matters for segmentation or INT8 alone."""

    model_config = ConfigDict(extra="forbid", strict=True)

    score_threshold: Unit
    nms_threshold: Unit = DEFAULT_NMS
    precision: Precision
    calibration_algorithm: Literal["Entropy"] = "Entropy"
    dla_core_id: int = -1
    quantize_first_layer: bool = False
    quantize_last_layer: bool = False
    profile_per_layer: bool = False
    clip_value: float = RELU6_CLIP
    gpu_id: int = 0
    calibration_image_list_path: str = ""
    is_roi_overlap_segmentation: bool = False
    overlap_roi_score_threshold: float = 0.3
    is_publish_color_mask: bool = False


def bundle(spec: ModelSpec, config: Mapping[str, Any], options: BundleOptions) -> Bundle:
    """The bundle of a YOLOX, see `exporter.autoware`.

    Raises:
        NodeRefuses: the node would misread the model; says why, and what to export instead.
        UsageError: an option that the node has no value for.
    """
    return detector_bundle(spec, spec.classes, config, options)


def detector_bundle(spec: ModelSpec, classes: list[str], config: Mapping[str, Any], options: BundleOptions) -> Bundle:
    """The bundle of a model that detects boxes of these classes, see `bundle`."""
    refusals = Refusals()
    image: Mapping[str, Any] = spec.parameters.get("image", {})
    refusals.unless(
        image.get("color") == "bgr" and image.get("mean") is None and image.get("std") is None,
        "it feeds blue, green, red from 0 to 255, without mean and deviation",
        hint="train it with the data preprocessor of AWML's configs",
    )
    refusals.unless(image.get("fill") == FILL, f"it fills with {FILL}", hint=f"train it with pad value {FILL}")
    refusals.unless(
        spec.parameters.get("strides") == STRIDES,
        f"it has rows of strides {STRIDES}",
        hint="train it with three levels",
    )
    refusals.unless(
        spec.parameters.get("output") in ("raw", "detections"),
        "it decodes boxes itself, and this one has them decoded",
        hint=f"{EXPORT_AGAIN} raw rows, or with suppression",
    )
    refusals.unless(len(spec.components) == 1, "it has one network", hint=f"{EXPORT_AGAIN} this version")
    labels = labels_of(classes, refusals)
    refusals.raise_any()
    network = f"{NAME}.onnx"
    parameters = NodeParameters(
        precision=precision(config, options), score_threshold=threshold_row("", options, DEFAULT_SCORE, 1)[0]
    )
    typed = {}
    if parameters.precision == "strongly-typed":
        typed = {typed_name(network): spec.components[0]}
    return Bundle(
        onnx={network: spec.components[0]},
        typed_onnx=typed,
        parameters={f"{NAME}.param.yaml": parameters.model_dump()},
        texts={
            "label.txt": "".join(f"{label}\n" for label in labels),
            "roi_remap.csv": "label_name,label_id\n" + "".join(f"{label},{LABELS.index(label)}\n" for label in labels),
        },
        notes=(
            f"launch: yolox_param_path: <bundle>/{NAME}.param.yaml, model_path: <bundle>/{next(iter(typed), network)}, "
            "label_path: <bundle>/label.txt, roi_remap_path: <bundle>/roi_remap.csv",
            "the node suppresses across classes; the evaluator does so per class",
        ),
        node=NODE,
        version=options.version or "v1.0",
    )
