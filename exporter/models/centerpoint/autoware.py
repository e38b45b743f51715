"""The bundle of autoware_lidar_centerpoint: two ONNX files, their parameters, the class remapper.

Built into the node: 32 points a pillar and 32 encoder channels, outputs bound by position, boxes read as w, l, h with
the yaw clockwise from the y axis, sizes as logarithms. From 0.53 on, every model has a folder, in which
``ml_package.param.yaml`` names its files; before, all models shared one, and a launch argument was part of the names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exporter.autoware import (
    Bundle,
    BundleOptions,
    Precision,
    precision,
    same_shape,
    threshold_row,
    typed_name,
)
from exporter.autoware.labels import LABELS, labels_of
from exporter.autoware.refusals import EXPORT_AGAIN, Refusals
from shared.errors import ManifestError, UsageError
from shared.spec import ComponentSpec, ModelSpec

NODE = "autoware_lidar_centerpoint"
ENCODER, HEAD = "pts_voxel_encoder", "pts_backbone_neck_head"
REMAPPER = "detection_class_remapper.param.yaml"
DEFAULT_MODEL_NAME = "centerpoint"
POINTS_PER_PILLAR = 32
ENCODER_CHANNELS = 32
# Features after decoration, by raw features and voxel center: what the node's kernels can make.
ENCODER_FEATURES: dict[tuple[object, object], int] = {(4, "xyz"): 10, (5, "xyz"): 11, (4, "xy"): 9}
OUTPUTS = {"heatmap": None, "reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2}
# The node's own defaults: bins in meters, and the thresholds that its released models come with.
DISTANCE_BINS = (50.0, 90.0, 121.0, 200.0)
DEFAULT_SCORE = 0.35
# The norm of (cos, sin) below which a box is dropped. Pedestrians have no reliable heading.
YAW_NORM, YAW_NORM_PEDESTRIAN = 0.3, 0.0
# The class remapper has a row and a column for each of these.
REMAPPED = LABELS[: LABELS.index("PEDESTRIAN") + 1]
# The node's name of a class where it is not the label's. It knows the remapped labels only; others are UNKNOWN to it.
NODE_NAMES = {"MOTORCYCLE": "MOTORBIKE"}

Unit = Annotated[float, Field(ge=0, le=1)]
Six = Annotated[list[float], Field(min_length=6, max_length=6)]


class _Exact(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ScoreThresholds(_Exact):
    """Least score per class and distance bin."""

    distance_bin_upper_limits: list[float]
    min_confidence_scores: dict[str, list[Unit]]


class ModelParameters(_Exact):
    """``model_params`` of the node's schema, 0.52."""

    class_names: list[str]
    has_twist: bool
    point_feature_size: int
    has_variance: bool
    max_voxel_size: int
    point_cloud_range: Six
    voxel_size: Annotated[list[float], Field(min_length=3, max_length=3)]
    downsample_factor: int = Field(ge=1)
    encoder_in_feature_size: int
    detection_score_thresholds: ScoreThresholds


class ModelParametersWithYaw(ModelParameters):
    """``model_params`` since 0.53."""

    yaw_norm_thresholds: list[Unit]


class NetworkFiles(_Exact):
    """The files of the two networks, and what they are built in."""

    encoder_onnx_path: str
    encoder_engine_path: str
    head_onnx_path: str
    head_engine_path: str
    trt_precision: Precision


class MlPackage(NetworkFiles):
    """``ml_package.param.yaml`` since 0.53, with paths relative to it."""

    version: str = Field(pattern=r"^v?[0-9]+\.[0-9]+$")
    class_remapper_param_path: str
    model_params: ModelParametersWithYaw


class PostProcessing(_Exact):
    """``post_process_params`` of 0.52: the node's own defaults, and the thresholds of the model's classes."""

    circle_nms_dist_threshold: float = 0.5
    iou_nms_search_distance_2d: float = 10.0
    iou_nms_threshold: float = 0.1
    yaw_norm_thresholds: list[Unit]


class Densification(_Exact):
    """``densification_params`` of 0.52."""

    world_frame_id: str = "map"
    num_past_frames: int = Field(ge=0)


class NodeParameters(NetworkFiles):
    """``<model_name>.param.yaml`` of 0.52, in which launch files replace ``$(var …)``."""

    cloud_capacity: int = 2_000_000
    post_process_params: PostProcessing
    densification_params: Densification


class _Needed(BaseModel):
    """The parameters of the model spec that the node must know, or has built in."""

    model_config = ConfigDict(extra="ignore")

    point_cloud_range: Six
    voxel_size: list[float]
    grid_size: list[int]
    max_points_per_voxel: int
    max_voxels: int
    points: dict[str, Any]
    decoration: dict[str, Any]
    encoder_channels: int
    out_size_factor: int
    norm_bbox: bool
    rot_y_axis_reference: bool
    tasks: list[dict[str, Any]]


def bundle(spec: ModelSpec, config: Mapping[str, Any], options: BundleOptions) -> Bundle:
    """The bundle of a CenterPoint, see `exporter.autoware`.

    Raises:
        NodeRefuses: the node would misread the model; says why, and what to export instead.
        ManifestError: the model spec lacks a parameter.
        UsageError: an option that the node has no value for.
    """
    needed = _read(spec)
    labels = _check_model(spec, needed)
    unknown = sorted(set(options.score_thresholds) - {"", *labels})
    if unknown:
        raise UsageError(f"the model has no class {unknown[0]}", where="--score-threshold", hint=", ".join(labels))
    built_in = precision(config, options)
    if options.autoware == "0.52":
        return _shared_folder(spec, needed, labels, built_in, options)
    return _own_folder(spec, needed, labels, built_in, options)


def _own_folder(
    spec: ModelSpec, needed: _Needed, labels: list[str], built_in: Precision, options: BundleOptions
) -> Bundle:
    """Since 0.53: a folder for each model."""
    version = _own_folder_version(options)
    encoder, head = f"{ENCODER}.onnx", f"{HEAD}.onnx"
    typed = _typed(spec, encoder, head, built_in)
    if typed:
        encoder, head = typed
    package = MlPackage(
        version=version,
        encoder_onnx_path=encoder,
        encoder_engine_path=f"{encoder.removesuffix('.onnx')}.engine",
        head_onnx_path=head,
        head_engine_path=f"{head.removesuffix('.onnx')}.engine",
        class_remapper_param_path=REMAPPER,
        trt_precision=built_in,
        model_params=ModelParametersWithYaw(
            **_model_parameters(needed, labels, options), yaw_norm_thresholds=_yaw_norms(labels)
        ),
    )
    return Bundle(
        onnx={f"{ENCODER}.onnx": spec.component(ENCODER), f"{HEAD}.onnx": spec.component(HEAD)},
        typed_onnx=typed,
        parameters={"ml_package.param.yaml": package.model_dump(), REMAPPER: class_remapper()},
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
    spec: ModelSpec, needed: _Needed, labels: list[str], built_in: Precision, options: BundleOptions
) -> Bundle:
    """Up to 0.52: one folder for all models, whose names are part of the names of files."""
    name = options.model_name or DEFAULT_MODEL_NAME
    if re.fullmatch(r"\w+", name, re.ASCII) is None:
        raise UsageError(f"'{name}' is no part of a file name", where="--model-name", hint=DEFAULT_MODEL_NAME)
    in_launch = "$(var model_path)/{}_$(var model_name).{}"
    node = NodeParameters(
        encoder_onnx_path=in_launch.format(ENCODER, "onnx"),
        encoder_engine_path=in_launch.format(ENCODER, "engine"),
        head_onnx_path=in_launch.format(HEAD, "onnx"),
        head_engine_path=in_launch.format(HEAD, "engine"),
        trt_precision=built_in,
        post_process_params=PostProcessing(yaw_norm_thresholds=_yaw_norms(labels)),
        densification_params=Densification(num_past_frames=int(needed.points["sweeps_num"])),
    )
    model = ModelParameters(**_model_parameters(needed, labels, options))
    return Bundle(
        onnx={f"{ENCODER}_{name}.onnx": spec.component(ENCODER), f"{HEAD}_{name}.onnx": spec.component(HEAD)},
        parameters={
            f"{name}_ml_package.param.yaml": {"model_params": model.model_dump()},
            f"{name}.param.yaml": node.model_dump(),
            REMAPPER: class_remapper(),
        },
        notes=(
            f"launch: model_name: {name}, model_path: <bundle>, model_param_path: <bundle>/{name}.param.yaml",
            *_notes(labels),
        ),
        node=NODE,
        version=options.version or "v3.0",
    )


def class_remapper() -> dict[str, Any]:
    """A remapper that changes no class: what the model says is published. Row: from, column: to, in label order."""
    cells = len(REMAPPED) ** 2
    return {
        "allow_remapping_by_area_matrix": [0] * cells,
        "min_area_matrix": [0.0] * cells,
        "max_area_matrix": [0.0] * cells,
    }


def _model_parameters(needed: _Needed, labels: list[str], options: BundleOptions) -> dict[str, Any]:
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
        "encoder_in_feature_size": _encoder_features(needed),
        "detection_score_thresholds": ScoreThresholds(
            distance_bin_upper_limits=list(DISTANCE_BINS),
            min_confidence_scores={
                name: threshold_row(label, options, DEFAULT_SCORE, len(DISTANCE_BINS))
                for name, label in zip(names, labels, strict=True)
            },
        ),
    }


def _typed(spec: ModelSpec, encoder: str, head: str, built_in: Precision) -> dict[str, ComponentSpec]:
    """The explicitly typed files, encoder first, where the node builds by types; else none."""
    if built_in != "strongly-typed":
        return {}
    return {typed_name(encoder): spec.component(ENCODER), typed_name(head): spec.component(HEAD)}


def _yaw_norms(labels: list[str]) -> list[float]:
    return [YAW_NORM_PEDESTRIAN if label == "PEDESTRIAN" else YAW_NORM for label in labels]


def _notes(labels: list[str]) -> list[str]:
    nameless = [label for label in labels if label not in REMAPPED]
    return [
        "the node takes the best class of every cell and suppresses within 0.5 m: expect fewer boxes than the "
        "evaluator's",
        *([f"the node has no name for {', '.join(nameless)}, and publishes such boxes as UNKNOWN"] if nameless else []),
    ]


def _own_folder_version(options: BundleOptions) -> str:
    version = options.version or "v4.1"
    match = re.fullmatch(r"v?(\d+)\.(\d+)", version)
    if match is None or int(match[1]) != 4 or int(match[2]) < 1:
        raise UsageError(
            f"'{version}' is not read by the node", where="--bundle-version", hint="it reads v4.1, v4.2, …"
        )
    return version


# -- what the node can run --------------------------------------------------------------------------------------------


def _read(spec: ModelSpec) -> _Needed:
    try:
        return _Needed.model_validate(spec.parameters)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ManifestError(
            f"parameters.{place}: {first['msg']}", where="model spec", hint=f"{EXPORT_AGAIN} this version"
        ) from error


def _encoder_features(needed: _Needed) -> int | None:
    """Number of features that the node's kernels feed the encoder, None where they can't make them."""
    decoration = needed.decoration
    plain = decoration.get("cluster_center") and not decoration.get("distance") and not decoration.get("legacy")
    features = ENCODER_FEATURES.get((decoration.get("raw_features"), decoration.get("voxel_center")))
    return features if plain else None


def _check_model(spec: ModelSpec, needed: _Needed) -> list[str]:
    """Refuse what the node has built in otherwise; returns the labels of the classes.

    Raises:
        NodeRefuses: with every reason.
    """
    refusals = Refusals()
    refusals.unless(
        needed.rot_y_axis_reference,
        "it reads boxes as w, l, h with the yaw from the y axis, this one has l, w, h and the yaw from the x axis",
        hint=f"{EXPORT_AGAIN} --set model.options.rot_y_axis_reference=true",
    )
    refusals.unless(
        len(needed.tasks) == 1,
        f"it has one head for all classes, this one {len(needed.tasks)} heads",
        hint="train it with one task",
    )
    refusals.unless(needed.norm_bbox, "sizes are not logarithms", hint="train it with norm_bbox=True")
    refusals.unless(
        needed.max_points_per_voxel == POINTS_PER_PILLAR and needed.encoder_channels == ENCODER_CHANNELS,
        f"{needed.max_points_per_voxel} points a pillar and {needed.encoder_channels} channels, not "
        f"{POINTS_PER_PILLAR} and {ENCODER_CHANNELS}",
        hint="train it with these sizes",
    )
    features = _encoder_features(needed)
    refusals.unless(
        features is not None,
        f"it can't make the encoder's input: {needed.decoration}",
        hint="train it with PillarFeatureNet or BackwardPillarFeatureNet as AWML configures them",
    )
    labels = labels_of(spec.classes, refusals)
    components = [component.name for component in spec.components]
    named = refusals.unless(
        components == [ENCODER, HEAD], f"components are {components}", hint=f"{EXPORT_AGAIN} their own names"
    )
    # With several heads the outputs are others anyway; they would be one more line about the same thing.
    if named and len(needed.tasks) == 1:
        _check_tensors(spec, needed, features, refusals)
    refusals.raise_any()
    return labels


def _check_tensors(spec: ModelSpec, needed: _Needed, features: int | None, refusals: Refusals) -> None:
    encoder, head = spec.component(ENCODER), spec.component(HEAD)
    dtypes = {tensor.dtype for part in spec.components for tensor in (*part.inputs, *part.outputs)}
    refusals.unless(
        dtypes == {"float32"}, f"it binds float32, tensors are {sorted(dtypes)}", hint=f"{EXPORT_AGAIN} float32"
    )
    columns, rows = needed.grid_size[0], needed.grid_size[1]
    wanted: list[int | None] = [needed.max_voxels, POINTS_PER_PILLAR, features]
    refusals.unless(
        features is None or same_shape(encoder.inputs[0], wanted),
        f"the encoder's input is {encoder.inputs[0].shape}, the node's is {wanted}",
        hint=f"{EXPORT_AGAIN} dynamic axes",
    )
    refusals.unless(
        same_shape(head.inputs[0], [1, ENCODER_CHANNELS, rows, columns]),
        f"the head's input is {head.inputs[0].shape}, the node's is {[1, ENCODER_CHANNELS, rows, columns]}",
        hint=f"{EXPORT_AGAIN} dynamic axes",
    )
    bound = refusals.unless(
        head.output_names() == list(OUTPUTS),
        f"outputs are {head.output_names()}, the node binds them by position as {list(OUTPUTS)}",
        hint="train it with velocities, and export it with this version",
    )
    if not bound:
        return
    for output, channels in zip(head.outputs, (len(spec.classes), *list(OUTPUTS.values())[1:]), strict=True):
        refusals.unless(
            output.shape[1] == channels,
            f"{output.name} has {output.shape[1]} channels, not {channels}",
            hint="train it with the head of AWML's configs",
        )
