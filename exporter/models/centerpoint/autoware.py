"""The bundle of autoware_lidar_centerpoint: two ONNX files, their parameters, the class remapper.

From 0.53 on, every model has a folder, in which ``ml_package.param.yaml`` names its files; before, all models shared
one, and a launch argument was part of the names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from exporter.autoware import Bundle, BundleOptions, Precision, precision, refuse_unread, threshold_row, typed_name
from exporter.autoware.class_remapper import REMAPPER, class_remapper, unnamed
from exporter.models.centerpoint.autoware_node import (
    ENCODER,
    HEAD,
    NODE_NAMES,
    Needed,
    check_model,
    encoder_features,
    read,
)
from shared.errors import UsageError
from shared.spec import ComponentSpec, ModelSpec

NODE = "autoware_lidar_centerpoint"
DEFAULT_MODEL_NAME = "centerpoint"
# The node's own defaults: bins in meters, and the thresholds that its released models come with.
DISTANCE_BINS = (50.0, 90.0, 121.0, 200.0)
DEFAULT_SCORE = 0.35
# The norm of (cos, sin) below which a box is dropped. Pedestrians have no reliable heading.
YAW_NORM, YAW_NORM_PEDESTRIAN = 0.3, 0.0


def bundle(spec: ModelSpec, config: Mapping[str, Any], options: BundleOptions) -> Bundle:
    """The bundle of a CenterPoint, see `exporter.autoware`.

    Raises:
        NodeRefuses: the node would misread the model; says why, and what to export instead.
        ManifestError: the model spec lacks a parameter.
        UsageError: an option that the node has no value for.
    """
    # From 0.53 on, no file has the model's name.
    refuse_unread(options, NODE, ["score_thresholds", *(["model_name"] if options.autoware == "0.52" else [])])
    needed = read(spec)
    labels = check_model(spec, needed)
    unknown = sorted(set(options.score_thresholds) - {"", *labels})
    if unknown:
        raise UsageError(f"the model has no class {unknown[0]}", where="--score-threshold", hint=", ".join(labels))
    built_in = precision(config, options)
    if options.autoware == "0.52":
        return _shared_folder(spec, needed, labels, built_in, options)
    return _own_folder(spec, needed, labels, built_in, options)


def _own_folder(
    spec: ModelSpec, needed: Needed, labels: list[str], built_in: Precision, options: BundleOptions
) -> Bundle:
    """Since 0.53: a folder for each model."""
    version = _own_folder_version(options)
    encoder, head = f"{ENCODER}.onnx", f"{HEAD}.onnx"
    typed = _typed(spec, encoder, head, built_in)
    if typed:
        encoder, head = typed
    package = {
        **_networks(encoder, head, built_in),
        "version": version,
        "class_remapper_param_path": REMAPPER,
        "model_params": {
            **_model_parameters(needed, labels, options),
            "yaw_norm_thresholds": _yaw_norms(labels),
        },
    }
    return Bundle(
        onnx={f"{ENCODER}.onnx": spec.component(ENCODER), f"{HEAD}.onnx": spec.component(HEAD)},
        typed_onnx=typed,
        parameters={"ml_package.param.yaml": package, REMAPPER: class_remapper()},
        notes=(
            "launch: model_path: <bundle>",
            "centerpoint_common.param.yaml: densification_params.num_past_frames: "
            f"{needed.points['sweeps_num']}, as the model was trained",
            *_notes(labels),
        ),
        node=NODE,
        version=version,
    )


def _shared_folder(
    spec: ModelSpec, needed: Needed, labels: list[str], built_in: Precision, options: BundleOptions
) -> Bundle:
    """Up to 0.52: one folder for all models, whose names are part of the names of files."""
    name = options.model_name or DEFAULT_MODEL_NAME
    if re.fullmatch(r"\w+", name, re.ASCII) is None:
        raise UsageError(f"'{name}' is no part of a file name", where="--model-name", hint=DEFAULT_MODEL_NAME)
    # Launch files replace $(var …).
    encoder, head = (f"$(var model_path)/{network}_$(var model_name).onnx" for network in (ENCODER, HEAD))
    node = {
        **_networks(encoder, head, built_in),
        "cloud_capacity": 2_000_000,
        "post_process_params": {
            "circle_nms_dist_threshold": 0.5,
            "iou_nms_search_distance_2d": 10.0,
            "iou_nms_threshold": 0.1,
            "yaw_norm_thresholds": _yaw_norms(labels),
        },
        "densification_params": {"world_frame_id": "map", "num_past_frames": int(needed.points["sweeps_num"])},
    }
    return Bundle(
        onnx={f"{ENCODER}_{name}.onnx": spec.component(ENCODER), f"{HEAD}_{name}.onnx": spec.component(HEAD)},
        parameters={
            f"{name}_ml_package.param.yaml": {"model_params": _model_parameters(needed, labels, options)},
            f"{name}.param.yaml": node,
            REMAPPER: class_remapper(),
        },
        notes=(
            f"launch: model_name: {name}, model_path: <bundle>, model_param_path: <bundle>/{name}.param.yaml",
            *_notes(labels),
        ),
        node=NODE,
        version=options.version or "v3.0",
    )


def _networks(encoder: str, head: str, built_in: Precision) -> dict[str, str]:
    """The files of the two networks, and what they are built in."""
    return {
        "encoder_onnx_path": encoder,
        "encoder_engine_path": f"{encoder.removesuffix('.onnx')}.engine",
        "head_onnx_path": head,
        "head_engine_path": f"{head.removesuffix('.onnx')}.engine",
        "trt_precision": built_in,
    }


def _model_parameters(needed: Needed, labels: list[str], options: BundleOptions) -> dict[str, Any]:
    """``model_params`` of the node's schema, but for what 0.53 added."""
    names = [NODE_NAMES.get(label, label) for label in labels]
    return {
        "class_names": names,
        "has_twist": True,
        "point_feature_size": int(needed.decoration["raw_features"]),
        "has_variance": False,
        "max_voxel_size": needed.max_voxels,
        "point_cloud_range": [float(value) for value in needed.point_cloud_range],
        "voxel_size": [float(value) for value in needed.voxel_size],
        "downsample_factor": needed.out_size_factor,
        "encoder_in_feature_size": encoder_features(needed),
        "detection_score_thresholds": {
            "distance_bin_upper_limits": list(DISTANCE_BINS),
            "min_confidence_scores": {
                name: threshold_row(label, options, DEFAULT_SCORE, len(DISTANCE_BINS))
                for name, label in zip(names, labels, strict=True)
            },
        },
    }


def _typed(spec: ModelSpec, encoder: str, head: str, built_in: Precision) -> dict[str, ComponentSpec]:
    """The explicitly typed files, encoder first, where the node builds by types; else none."""
    if built_in != "strongly-typed":
        return {}
    return {typed_name(encoder): spec.component(ENCODER), typed_name(head): spec.component(HEAD)}


def _yaw_norms(labels: list[str]) -> list[float]:
    return [YAW_NORM_PEDESTRIAN if label == "PEDESTRIAN" else YAW_NORM for label in labels]


def _notes(labels: list[str]) -> list[str]:
    return [
        "the node takes the best class of every cell and suppresses within 0.5 m: expect fewer boxes than the "
        "evaluator's",
        *unnamed(labels),
    ]


def _own_folder_version(options: BundleOptions) -> str:
    version = options.version or "v4.1"
    match = re.fullmatch(r"v?(\d+)\.(\d+)", version)
    if match is None or int(match[1]) != 4 or int(match[2]) < 1:
        raise UsageError(
            f"'{version}' is not read by the node", where="--bundle-version", hint="it reads v4.1, v4.2, …"
        )
    return version
