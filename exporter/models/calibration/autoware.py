"""The bundle of autoware_calibration_status_classifier: the ONNX file and its model parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exporter.autoware import Bundle, BundleOptions, precision, refuse_unread, same_shape, typed_name
from exporter.autoware.refusals import EXPORT_AGAIN, Refusals
from shared.spec import ComponentSpec, ModelSpec

NODE = "autoware_calibration_status_classifier"
NAME = "calibration_status_classifier"
CHANNELS, STATES = 5, ["miscalibrated", "calibrated"]
# The node's defaults: least, best and largest size of an image.
DEFAULT_HEIGHTS, DEFAULT_WIDTHS = [1080, 1860, 2160], [1920, 2880, 3840]


def bundle(spec: ModelSpec, config: Mapping[str, Any], options: BundleOptions) -> Bundle:
    """The bundle of a calibration status classifier, see `exporter.autoware`.

    Raises:
        NodeRefuses: the node would misread the model; says why, and what to export instead.
        UsageError: an option that the node has no value for.
    """
    refuse_unread(options, NODE, ["ego_box"])
    refusals = Refusals()
    refusals.unless(
        spec.classes == STATES, f"outputs are {spec.classes}, the node's {STATES}", hint=f"{EXPORT_AGAIN} this version"
    )
    if refusals.unless(len(spec.components) == 1, "it has one network", hint=f"{EXPORT_AGAIN} this version"):
        _check_tensors(spec.components[0], refusals)
    refusals.raise_any()
    component, network = spec.components[0], f"{NAME}.onnx"
    heights, widths = _profile(config, component.name)
    package = {
        "max_depth": float(spec.parameters["max_depth"]),
        "dilation_size": int(spec.parameters["dilation_size"]),
        "height": heights,
        "width": widths,
    }
    built_in = precision(config, options)
    typed = {typed_name(network): component} if built_in == "strongly-typed" else {}
    node = {
        "onnx_path": f"<bundle>/{next(iter(typed), network)}",
        "trt_precision": built_in,
        "miscalibration_confidence_threshold": spec.parameters["miscalibration_confidence_threshold"],
        "ego_box": list(options.ego_box) if any(options.ego_box) else "of the vehicle",
    }
    return Bundle(
        onnx={network: component},
        typed_onnx=typed,
        parameters={f"ml_package_{NAME}.param.yaml": package},
        notes=(
            f"{NAME}.param.yaml: {', '.join(f'{key}: {value}' for key, value in node.items())}",
            f"launch: model_path: <bundle>, model_name: {NAME}",
        ),
        node=NODE,
        version=options.version or "v1.0",
    )


def _check_tensors(component: ComponentSpec, refusals: Refusals) -> None:
    inputs, outputs = [tensor.name for tensor in component.inputs], component.output_names()
    refusals.unless(
        inputs == ["input"] and outputs == ["output"],
        f"tensors are {inputs} and {outputs}, the node's input and output",
        hint=f"{EXPORT_AGAIN} this version",
    )
    refusals.unless(
        same_shape(component.inputs[0], [1, CHANNELS, None, None])
        and all(isinstance(size, str) for size in component.inputs[0].shape[2:]),
        f"the input is {component.inputs[0].shape}; the node's images have any size",
        hint=f"{EXPORT_AGAIN} dynamic height and width",
    )


def _profile(config: Mapping[str, Any], component: str) -> tuple[list[int], list[int]]:
    """Heights and widths of the config's profile with the largest images; the node's defaults where it has none."""
    settings: Mapping[str, Any] = config.get("components", {}).get(component, {})
    configured = [settings.get("tensorrt_profile", {}), *settings.get("extra_tensorrt_profiles", [])]
    profiles = [profile["input"] for profile in configured if "input" in profile]
    if not profiles:
        return DEFAULT_HEIGHTS, DEFAULT_WIDTHS
    largest = max(profiles, key=lambda profile: profile["max_shape"][2] * profile["max_shape"][3])
    shapes = [largest[f"{bound}_shape"] for bound in ("min", "opt", "max")]
    return [int(shape[2]) for shape in shapes], [int(shape[3]) for shape in shapes]
