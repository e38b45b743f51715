"""The bundle of autoware_lidar_transfusion: the ONNX file, its parameters, those of the node, the class remapper.

What the node has built in was read in autoware_universe (``TransfusionConfig``, ``postprocess_kernel.cu``,
``ros_utils.cpp``, its schemas) and autoware_launch: five classes; 20 points of x, y, z, intensity from 0 to 255 and
time lag in a pillar; a map four times as coarse as the pillars; velocities. It takes a query's best class, and reads
l, w, h and the yaw from the x axis, as the network answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from awml_deploy_transfusion.names import COMPONENT, INPUTS, OUTPUTS, VOXELS_AXIS
from exporter.autoware import Bundle, BundleOptions, precision, threshold_row
from exporter.autoware.class_remapper import REMAPPER, class_remapper, unnamed
from exporter.autoware.labels import labels_of
from exporter.autoware.refusals import EXPORT_AGAIN, Refusals
from shared.errors import ManifestError, UsageError
from shared.spec import ModelSpec

NODE = "autoware_lidar_transfusion"
_DEFAULT_NAME = "transfusion"
# What AWML exports, and the node feeds.
_CLASSES, _POINTS, _COLUMNS, _FACTOR, _NUMBERS = 5, 20, 5, 4, 8
# Fewer voxels than the least of the engine, and the node leaves the frame out; AWML's profile.
_LEAST_VOXELS = 5000
# The node's own defaults.
_SCORE, _NMS_DISTANCE = 0.1, 0.5
# The norm of (cos, sin) below which a box is dropped. Pedestrians have no reliable heading.
_YAW_NORM, _YAW_NORM_PEDESTRIAN = 0.3, 0.0


def bundle(spec: ModelSpec, config: Mapping[str, Any], options: BundleOptions) -> Bundle:
    """The bundle of a TransFusion, see `exporter.autoware`.

    Raises:
        NodeRefuses: the node would misread the model; says why.
        ManifestError: the model spec lacks a parameter.
        UsageError: an option that the node has no value for.
    """
    try:
        labels = _check(spec)
        parameters = _parameters(spec, labels)
        sweeps = int(spec.parameters["points"]["sweeps_num"])
    except KeyError as error:
        raise ManifestError(
            f"has no parameter {error.args[0]}", where="model spec", hint=f"{EXPORT_AGAIN} this version"
        ) from error
    name = options.model_name or _DEFAULT_NAME
    built_in = precision(config, options)
    if built_in not in ("fp32", "fp16"):
        raise UsageError(
            f"the node has no precision {built_in}", where="--precision", hint="choose --precision fp16 or fp32"
        )
    if set(options.score_thresholds) - {""}:
        raise UsageError("the node has one threshold for all classes", where="--score-threshold", hint="give one value")
    (score,) = threshold_row("", options, _SCORE, 1)
    node = {
        "trt_precision": built_in,
        "cloud_capacity": 2_000_000,
        "onnx_path": "$(var model_path)/transfusion.onnx",
        "engine_path": "$(var model_path)/transfusion.engine",
        "densification_num_past_frames": sweeps,
        "densification_world_frame_id": "map",
        "circle_nms_dist_threshold": _NMS_DISTANCE,
        "iou_nms_search_distance_2d": 10.0,
        "iou_nms_threshold": 0.1,
        "yaw_norm_thresholds": [_YAW_NORM_PEDESTRIAN if label == "PEDESTRIAN" else _YAW_NORM for label in labels],
        "score_threshold": score,
    }
    return Bundle(
        onnx={"transfusion.onnx": spec.component(COMPONENT)},
        parameters={
            f"{name}_ml_package.param.yaml": parameters,
            f"{name}.param.yaml": node,
            REMAPPER: class_remapper(),
        },
        notes=(
            f"launch: transfusion_model_path: <bundle>, lidar_detection_model: transfusion/{name}",
            f"copy {name}.param.yaml to lidar_model_param_path",
            f"the node suppresses within {_NMS_DISTANCE} m, and leaves out frames of fewer than "
            f"{parameters['voxels_num'][0]} voxels: expect fewer boxes than the evaluator's",
            *unnamed(labels),
        ),
        node=NODE,
        version=options.version or "v1.0",
    )


def _parameters(spec: ModelSpec, labels: list[str]) -> dict[str, Any]:
    """``transfusion_ml_package.param.yaml``."""
    axis = spec.component(COMPONENT).axes[VOXELS_AXIS]
    return {
        "class_names": labels,
        "voxels_num": [min(max(axis.min, _LEAST_VOXELS), axis.opt), axis.opt, axis.max],
        "point_cloud_range": [float(value) for value in spec.parameters["point_cloud_range"]],
        "voxel_size": [float(value) for value in spec.parameters["voxel_size"]],
        "num_proposals": spec.component(COMPONENT).outputs[0].shape[2],
    }


def _check(spec: ModelSpec) -> list[str]:
    """Refuse what the node has built in otherwise; returns the labels of the classes.

    Raises:
        NodeRefuses: with every reason.
    """
    refusals, network, parameters = Refusals(), spec.component(COMPONENT), spec.parameters
    labels = labels_of(spec.classes, refusals)
    points = parameters["points"]
    shape = [VOXELS_AXIS, _POINTS, _COLUMNS]
    refusals.unless(
        [tensor.name for tensor in (*network.inputs, *network.outputs)] == [*INPUTS, *OUTPUTS]
        and VOXELS_AXIS in network.axes,
        "its tensors have other names, or a fixed number of voxels",
        hint=f"{EXPORT_AGAIN} dynamic axes and AWML's names",
    )
    refusals.unless(
        list(network.inputs[0].shape) == shape,
        f"voxels are {network.inputs[0].shape}, the node's are {shape}",
        hint="train it with 20 points a pillar, of x, y, z, intensity and time lag",
    )
    refusals.unless(
        not points.get("norm_intensity"),
        "it normalizes intensities, the node gives them from 0 to 255",
        hint="train it without norm_intensity",
    )
    refusals.unless(
        len(labels) == _CLASSES, f"it has {len(labels)} classes, the node {_CLASSES}", hint=f"train it with {_CLASSES}"
    )
    refusals.unless(
        network.outputs[1].shape[1] == _NUMBERS,
        "it has no velocities, which the node expects",
        hint="train it with vel in common_heads",
    )
    refusals.unless(
        parameters["out_size_factor"] == _FACTOR,
        f"out_size_factor is {parameters['out_size_factor']}, the node's is {_FACTOR}",
        hint=f"train it with {_FACTOR}",
    )
    refusals.raise_any()
    return labels
