"""The bundle of autoware_traffic_light_classifier: the ONNX file, the names of its classes, the node's parameters.

What the node has built in was read in autoware_universe (``cnn_classifier.cpp``, ``tensorrt_classifier.cpp``,
``traffic_light_classifier_utils.cpp``) and autoware_launch: crops of red, green, blue, fitted in at the top left, and
black beside them; the batch of the file; the first of the greatest probabilities. A label names lamps, separated
by commas: ``color-shape``, a color (a circle), or a shape (a green arrow).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from awml_deploy_traffic_light.names import INPUT, OUTPUT
from exporter.autoware import Bundle, BundleOptions, precision
from exporter.autoware.refusals import EXPORT_AGAIN, Refusals
from shared.errors import ManifestError, UsageError
from shared.spec import ModelSpec

NODE = "autoware_traffic_light_classifier"
_PEDESTRIAN = "crosswalk_"  # what AWML's classes begin with
_COLORS = {"red", "yellow", "green", "white"}
_SHAPES = {
    "circle", "left", "right", "straight", "up_left", "up_right", "down", "down_left", "down_right", "cross",
}  # fmt: skip
_CAR_TYPE, _PEDESTRIAN_TYPE = 0, 1
# The node's defaults; the last three are for another kind of network, and every parameter file has them.
_DEFAULTS = {
    "approximate_sync": False,
    "over_exposure_threshold": 0.85,
    "under_exposure_threshold": -0.83,
    "score_threshold": 0.2,
    "nms_threshold": 0.2,
    "max_batch_size": 64,
}


def bundle(spec: ModelSpec, config: Mapping[str, Any], options: BundleOptions) -> Bundle:
    """The bundle of a classifier of traffic lights, see `exporter.autoware`.

    Raises:
        NodeRefuses: the node would misread the model; says why.
        ManifestError: the model spec lacks a parameter.
        UsageError: an option that the node has no value for.
    """
    image = spec.parameters.get("image")
    if not isinstance(image, Mapping):
        raise ManifestError("has no parameter image", where="model spec", hint=f"{EXPORT_AGAIN} this version")
    labels = _check(spec, image)
    built_in = precision(config, options)
    if built_in not in ("fp32", "fp16"):
        raise UsageError(
            f"the node has no precision {built_in}", where="--precision", hint="choose --precision fp16 or fp32"
        )
    if options.score_thresholds:
        raise UsageError("the node has no threshold for classes", where="--score-threshold", hint="leave it out")
    is_pedestrian = spec.classes[0].startswith(_PEDESTRIAN)
    kind, prefix, suffix = ("pedestrian", "ped_", "_ped") if is_pedestrian else ("car", "", "")
    (component,) = spec.components
    network = f"{prefix}traffic_light_classifier_mobilenetv2_batch_{component.inputs[0].shape[0]}.onnx"
    names, launch = f"lamp_labels{suffix}.txt", f"traffic_light_recognition/classification/{kind}"
    scaled_alike = [step.get("cut_off") for step in image["steps"] if step["step"] == "resize"] == [True]
    return Bundle(
        onnx={network: component},
        parameters={
            f"{kind}_traffic_light_classifier.param.yaml": {
                **_DEFAULTS,
                "precision": built_in,
                "mean": [float(value) for value in image["mean"]],
                "std": [float(value) for value in image["std"]],
                "traffic_light_type": _PEDESTRIAN_TYPE if is_pedestrian else _CAR_TYPE,
            }
        },
        texts={names: "".join(f"{label}\n" for label in labels)},
        notes=(
            f"launch: {launch}/model_path: <bundle>/{network}, {launch}/label_path: <bundle>/{names}, "
            f"{launch}/classifier_type: 1",
            "the node calls lights that are too bright or too dark unknown, whatever the network says",
            *(
                []
                if scaled_alike
                else ["the node scales images otherwise: model.options.resize=autoware evaluates the model as it does"]
            ),
        ),
        node=NODE,
        version=options.version or "v1.0",
    )


def _check(spec: ModelSpec, image: Mapping[str, Any]) -> list[str]:
    """Refuse what the node has built in otherwise; returns the labels of the classes as it reads them.

    Raises:
        NodeRefuses: with every reason.
    """
    refusals = Refusals()
    (component,) = spec.components
    tensors = [tensor.name for tensor in (*component.inputs, *component.outputs)]
    refusals.unless(
        tensors == [INPUT, OUTPUT], f"its tensors are {tensors}", hint=f"{EXPORT_AGAIN} {INPUT} and {OUTPUT}"
    )
    refusals.unless(
        isinstance(component.inputs[0].shape[0], int),
        "it takes any number of images, and the node has the batch of its file",
        hint=f"{EXPORT_AGAIN} model.options.batch_size=6, or 1 or 4",
    )
    refusals.unless(
        image.get("color") == "rgb", "the node feeds red, green, blue", hint="train it with to_rgb in the preprocessor"
    )
    kinds = [step["step"] for step in image["steps"]]
    fits_in = kinds == ["resize", "pad"] and image["steps"][0].get("keep_ratio")
    refusals.unless(
        fits_in and not image["steps"][1].get("fill"),
        f"its images go through {', '.join(kinds)}; the node's are fitted in, and black beside it",
        hint="train it with Resize(keep_ratio=True) and Pad(pad_to_square=True)",
    )
    groups = {name.startswith(_PEDESTRIAN) for name in spec.classes}
    refusals.unless(len(groups) == 1, "it is for lights of cars and pedestrians both", hint="train one for each")
    labels = [name.removeprefix(_PEDESTRIAN) for name in spec.classes]
    unread = [label for label in labels if not all(_is_read(lamp) for lamp in label.split(","))]
    refusals.unless(
        not unread,
        f"the node can't read the label {', '.join(unread)}",
        hint=f"colors are {', '.join(sorted(_COLORS))}, shapes {', '.join(sorted(_SHAPES))}",
    )
    refusals.raise_any()
    return labels


def _is_read(lamp: str) -> bool:
    color, dash, shape = lamp.partition("-")
    return (color in _COLORS and shape in _SHAPES) if dash else lamp in _COLORS | _SHAPES | {"unknown"}
