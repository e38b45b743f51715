"""The bundle of autoware_tensorrt_yolox: the ONNX file, label names, their numbers in Autoware, the node's parameters.

Built into the node: BGR pixels 0 to 255 without mean and deviation, placed top left on 114; rows of strides 8, 16, 32;
either the head's raw rows, which the node decodes and suppresses, or the four tensors of EfficientNMS_TRT.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exporter.autoware import Bundle, BundleOptions, precision, refuse_unread, threshold_row, typed_name
from exporter.autoware.labels import LABELS, labels_of
from exporter.autoware.refusals import EXPORT_AGAIN, Refusals
from shared.errors import UsageError
from shared.spec import ModelSpec

NODE = "autoware_tensorrt_yolox"
# The file names that the launch file of this configuration defaults to.
NAME = "yolox_s_plus_opt"
STRIDES = [8, 16, 32]
FILL = 114
# The node's defaults.
DEFAULT_SCORE, DEFAULT_NMS = 0.35, 0.7
RELU6_CLIP = 6.0


def bundle(spec: ModelSpec, config: Mapping[str, Any], options: BundleOptions) -> Bundle:
    """The bundle of a YOLOX, see `exporter.autoware`.

    Raises:
        NodeRefuses: the node would misread the model; says why, and what to export instead.
        UsageError: an option that the node has no value for.
    """
    return detector_bundle(spec, spec.classes, config, options)


def detector_bundle(spec: ModelSpec, classes: list[str], config: Mapping[str, Any], options: BundleOptions) -> Bundle:
    """The bundle of a model that detects boxes of these classes, see `bundle`."""
    refuse_unread(options, NODE, ["score_thresholds"])
    named = sorted(set(options.score_thresholds) - {""})
    if named:
        raise UsageError(
            f"{NODE} has one threshold for all classes, none for {named[0]}", where="--score-threshold",
            hint=f"give one value: --score-threshold {DEFAULT_SCORE}",
        )  # fmt: skip
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
    built_in = precision(config, options)
    parameters = {
        "score_threshold": threshold_row("", options, DEFAULT_SCORE, 1)[0],
        "nms_threshold": DEFAULT_NMS,
        "precision": built_in,
        # What follows is the node's default, or matters for segmentation or INT8 alone.
        "calibration_algorithm": "Entropy",
        "dla_core_id": -1,
        "quantize_first_layer": False,
        "quantize_last_layer": False,
        "profile_per_layer": False,
        "clip_value": RELU6_CLIP,
        "gpu_id": 0,
        "calibration_image_list_path": "",
        "is_roi_overlap_segmentation": False,
        "overlap_roi_score_threshold": 0.3,
        "is_publish_color_mask": False,
    }
    typed = {typed_name(network): spec.components[0]} if built_in == "strongly-typed" else {}
    return Bundle(
        onnx={network: spec.components[0]},
        typed_onnx=typed,
        parameters={f"{NAME}.param.yaml": parameters},
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
