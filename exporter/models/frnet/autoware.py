"""The bundle of autoware_lidar_frnet: the ONNX file, the node's parameters, and those of the model.

Built into the node, as read in autoware_universe and autoware_launch (middle of 2026): points of one lidar, in its own
frame, with x, y, z and intensity; inputs in AWML's form. It shows the farthest point of a pixel where AWML shows the
nearest, in half precision, so that points in gaps differ a little: the option ``gaps`` computes them as the node does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from exporter.autoware import Bundle, BundleOptions, precision, refuse_unread, same_shape, typed_name
from exporter.autoware.refusals import EXPORT_AGAIN, Refusals
from shared.class_colors import class_colors
from shared.spec import ModelSpec

NODE = "autoware_lidar_frnet"
# ``sensor_model`` of the launch file, which is part of file names.
SENSOR = "ot128"
UNKNOWN = "unknown"
# Points that are probably of the first of these that the model knows are left out of the node's filtered points.
GROUND = ("drivable_surface", "driveable_surface", "road")
FILTER_CONFIDENCE = 0.05
INPUTS: Mapping[str, list[int | None]] = {
    "points": [None, 4], "coors": [None, 3], "voxel_coors": [None, 3], "inverse_map": [None],
}  # fmt: skip


def bundle(spec: ModelSpec, config: Mapping[str, Any], options: BundleOptions) -> Bundle:
    """The bundle of an FRNet, see `exporter.autoware`.

    Raises:
        NodeRefuses: the node would misread the model; says why, and what to export instead.
        UsageError: an option that the node has no value for.
    """
    refuse_unread(options, NODE, ["model_name", "ego_box"])
    refusals, component = Refusals(), spec.components[0]
    given = {tensor.name: tensor for tensor in component.inputs}
    refusals.unless(
        list(given) == list(INPUTS) and all(same_shape(given[name], shape) for name, shape in INPUTS.items()),
        f"it gives {', '.join(INPUTS)}",
        hint=f"{EXPORT_AGAIN} --set model.options.form=scatter --set export.opset_version=18",
    )
    ground = next((name for name in GROUND if name in spec.classes), None)
    refusals.unless(
        ground is not None,
        f"its filter leaves out a class of the model, and there is none of {', '.join(GROUND)}",
        hint="name the ground so in the training config",
    )
    refusals.raise_any()
    sensor = options.model_name or SENSOR
    network = f"frnet_{sensor}.onnx"
    built_in = precision(config, options)
    typed = {typed_name(network): component} if built_in == "strongly-typed" else {}
    node = {
        "onnx_path": f"$(var model_path)/{next(iter(typed), network)}",
        "trt_precision": built_in,
        "filter": {
            "class_confidence_threshold": FILTER_CONFIDENCE,
            "classes": [ground],
            "ego_crop_box": {"reference_frame": "base_link", **_box(options.ego_box)},
        },
    }
    return Bundle(
        onnx={network: component},
        typed_onnx=typed,
        parameters={"frnet.param.yaml": node, f"ml_package_frnet_{sensor}.param.yaml": _package(spec)},
        notes=(
            f"launch: model_path: <bundle>, model_param_path: <bundle>/frnet.param.yaml, sensor_model: {sensor}",
            f"the network's output is {component.outputs[0].name}; where the node asks for another name, export with "
            "--set model.options.output=seg_logit or pred_probs",
            "the node takes points in the lidar's own frame, and fills gaps between the farthest of them: "
            "model.options.gaps=autoware evaluates the model so",
        ),
        node=NODE,
        version=options.version or "v1.0",
    )


def _package(spec: ModelSpec) -> dict[str, Any]:
    """``ml_package_frnet_<sensor_model>.param.yaml``."""
    parameters = spec.parameters
    image, frustums, seen = parameters["interpolation"], parameters["frustums"], parameters["sensor"]
    names = [*spec.classes, *([UNKNOWN] if parameters["ignored_class"] is not None else [])]
    return {
        "fov_up_deg": float(seen["fov_up"]),
        "fov_down_deg": float(seen["fov_down"]),
        "frustum_width": frustums["width"],
        "frustum_height": frustums["height"],
        "interpolation_width": image["width"],
        "interpolation_height": image["height"],
        "class_names": names,
        "palette": [value for color in class_colors(len(names)) for value in color],
        **{name: _sizes(spec, name) for name in ("num_points", "num_unique_coors")},
    }


def _box(sides: Sequence[float]) -> dict[str, float]:
    names = [f"{side}_{axis}" for side in ("min", "max") for axis in "xyz"]
    return dict(zip(names, map(float, sides), strict=True))


def _sizes(spec: ModelSpec, axis: str) -> list[int]:
    sizes = spec.components[0].axes[axis]
    return [sizes.min, sizes.opt, sizes.max]
