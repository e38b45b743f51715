"""The bundle of autoware_calibration_status_classifier: the ONNX file and its model parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from exporter.autoware import EXPORT_AGAIN, Bundle, BundleOptions, precision, refuse_unless, same_shape
from shared.spec import ModelSpec

NAME = "calibration_status_classifier"
CHANNELS, STATES = 5, ["miscalibrated", "calibrated"]
# The node's defaults: least, best and largest size of an image.
DEFAULT_HEIGHTS, DEFAULT_WIDTHS = [1080, 1860, 2160], [1920, 2880, 3840]

Sizes = Annotated[list[int], Field(min_length=3, max_length=3)]


class MlPackage(BaseModel):
    """The node's model parameters, as its schema has them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    max_depth: float = Field(gt=0)
    dilation_size: int = Field(ge=0)
    height: Sizes
    width: Sizes
    ego_box: Annotated[list[float], Field(min_length=6, max_length=6)]


def bundle(spec: ModelSpec, config: Mapping[str, Any], options: BundleOptions) -> Bundle:
    """The bundle of a calibration status classifier, see `exporter.autoware`.

    Raises:
        InputError: the node would misread the model; says why and what to export instead.
        UsageError: an option that the node has no value for.
    """
    refuse_unless(
        spec.classes == STATES, f"outputs are {spec.classes}, the node's {STATES}", hint=f"{EXPORT_AGAIN} this version"
    )
    refuse_unless(len(spec.components) == 1, "it has one network", hint=f"{EXPORT_AGAIN} this version")
    component = spec.components[0]
    inputs, outputs = [tensor.name for tensor in component.inputs], component.output_names()
    refuse_unless(
        inputs == ["input"] and outputs == ["output"],
        f"tensors are {inputs} and {outputs}, the node's input and output",
        hint=f"{EXPORT_AGAIN} this version",
    )
    refuse_unless(
        same_shape(component.inputs[0], [1, CHANNELS, None, None])
        and all(isinstance(size, str) for size in component.inputs[0].shape[2:]),
        f"the input is {component.inputs[0].shape}; the node's images have any size",
        hint=f"{EXPORT_AGAIN} dynamic height and width",
    )
    heights, widths = _profile(config, component.name)
    package = MlPackage(
        max_depth=float(spec.parameters["max_depth"]),
        dilation_size=int(spec.parameters["dilation_size"]),
        height=heights,
        width=widths,
        ego_box=list(options.ego_box),
    )
    threshold = spec.parameters["miscalibration_confidence_threshold"]
    node_precision = precision(config, options.precision, ("fp32", "fp16"))
    return Bundle(
        onnx={f"{NAME}.onnx": component},
        parameters={f"ml_package_{NAME}.param.yaml": package.model_dump()},
        notes=(
            f"{NAME}.param.yaml: trt_precision: {node_precision}, miscalibration_confidence_threshold: {threshold}",
            f"launch: model_path: <bundle>, model_name: {NAME}",
        ),
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
