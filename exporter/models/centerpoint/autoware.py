"""The bundle of autoware_lidar_centerpoint, version 4.1: two ONNX files, ml_package, class remapper, metadata.

Built into the node: 32 points a pillar and 32 encoder channels, outputs bound by position, boxes read as w, l, h with
the yaw clockwise from the y axis, sizes as logarithms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exporter.autoware import (
    EXPORT_AGAIN,
    LABELS,
    Bundle,
    BundleOptions,
    class_names,
    precision,
    refuse_unless,
    same_shape,
    threshold_row,
)
from shared.errors import ManifestError, UsageError
from shared.spec import ModelSpec

ENCODER, HEAD = "pts_voxel_encoder", "pts_backbone_neck_head"
REMAPPER = "detection_class_remapper.param.yaml"
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

Unit = Annotated[float, Field(ge=0, le=1)]
Six = Annotated[list[float], Field(min_length=6, max_length=6)]


class _Exact(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ScoreThresholds(_Exact):
    """Least score per class and distance bin."""

    distance_bin_upper_limits: list[float]
    min_confidence_scores: dict[str, list[Unit]]


class ModelParameters(_Exact):
    """``model_params`` of the node's schema."""

    class_names: list[str]
    has_twist: bool
    point_feature_size: int
    has_variance: bool
    max_voxel_size: int
    point_cloud_range: Six
    voxel_size: Annotated[list[float], Field(min_length=3, max_length=3)]
    downsample_factor: int = Field(ge=1)
    encoder_in_feature_size: int
    yaw_norm_thresholds: list[Unit]
    detection_score_thresholds: ScoreThresholds


class MlPackage(_Exact):
    """``ml_package.param.yaml``, as the node's schema has it."""

    version: str = Field(pattern=r"^v?[0-9]+\.[0-9]+$")
    encoder_onnx_path: str
    encoder_engine_path: str
    head_onnx_path: str
    head_engine_path: str
    class_remapper_param_path: str
    trt_precision: Literal["fp32", "fp16"]
    model_params: ModelParameters


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
        InputError: the node would misread the model; says why and what to export instead.
        UsageError: an option that the node has no value for.
    """
    needed = _read(spec)
    features = _check_model(spec, needed)
    _check_version(options.version)
    names = class_names(spec.classes)
    unknown = sorted(set(options.score_thresholds) - {"", *names})
    if unknown:
        raise UsageError(f"the model has no class {unknown[0]}", where="--score-threshold", hint=", ".join(names))
    package = MlPackage(
        version=options.version,
        encoder_onnx_path=f"{ENCODER}.onnx",
        encoder_engine_path=f"{ENCODER}.engine",
        head_onnx_path=f"{HEAD}.onnx",
        head_engine_path=f"{HEAD}.engine",
        class_remapper_param_path=REMAPPER,
        trt_precision=precision(config, options.precision, ("fp32", "fp16")),
        model_params=ModelParameters(
            class_names=names,
            has_twist=True,
            point_feature_size=int(needed.decoration["raw_features"]),
            has_variance=False,
            max_voxel_size=needed.max_voxels,
            point_cloud_range=[float(value) for value in needed.point_cloud_range],
            voxel_size=[float(value) for value in needed.voxel_size],
            downsample_factor=needed.out_size_factor,
            encoder_in_feature_size=features,
            yaw_norm_thresholds=[YAW_NORM_PEDESTRIAN if name == "PEDESTRIAN" else YAW_NORM for name in names],
            detection_score_thresholds=ScoreThresholds(
                distance_bin_upper_limits=list(DISTANCE_BINS),
                min_confidence_scores={
                    name: threshold_row(name, options, DEFAULT_SCORE, len(DISTANCE_BINS)) for name in names
                },
            ),
        ),
    )
    return Bundle(
        onnx={f"{ENCODER}.onnx": spec.component(ENCODER), f"{HEAD}.onnx": spec.component(HEAD)},
        parameters={"ml_package.param.yaml": package.model_dump(), REMAPPER: class_remapper()},
        notes=(
            f"centerpoint_common.param.yaml: densification_params.num_past_frames: {needed.points['sweeps_num']}, "
            "as the model was trained",
            "the node takes the best class of every cell and suppresses within 0.5 m: expect fewer boxes than the "
            "evaluator's",
        ),
    )


def class_remapper() -> dict[str, Any]:
    """A remapper that changes no class: what the model says is published. Row: from, column: to, in label order."""
    cells = len(LABELS) ** 2
    return {
        "allow_remapping_by_area_matrix": [0] * cells,
        "min_area_matrix": [0.0] * cells,
        "max_area_matrix": [0.0] * cells,
    }


def _read(spec: ModelSpec) -> _Needed:
    try:
        return _Needed.model_validate(spec.parameters)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ManifestError(
            f"parameters.{place}: {first['msg']}", where="model spec", hint=f"{EXPORT_AGAIN} this version"
        ) from error


def _check_model(spec: ModelSpec, needed: _Needed) -> int:
    """Refuse what the node has built in otherwise; returns the number of features that the encoder takes."""
    refuse_unless(
        needed.rot_y_axis_reference,
        "it reads boxes as w, l, h with the yaw from the y axis, this one has l, w, h and the yaw from the x axis",
        hint=f"{EXPORT_AGAIN} --set model.options.rot_y_axis_reference=true",
    )
    refuse_unless(len(needed.tasks) == 1, f"it has {len(needed.tasks)} heads", hint="train it with one task")
    refuse_unless(needed.norm_bbox, "sizes are not logarithms", hint="train it with norm_bbox=True")
    refuse_unless(
        needed.max_points_per_voxel == POINTS_PER_PILLAR and needed.encoder_channels == ENCODER_CHANNELS,
        f"{needed.max_points_per_voxel} points a pillar and {needed.encoder_channels} channels, not "
        f"{POINTS_PER_PILLAR} and {ENCODER_CHANNELS}",
        hint="train it with these sizes",
    )
    decoration = needed.decoration
    features = ENCODER_FEATURES.get((decoration.get("raw_features"), decoration.get("voxel_center")))
    plain = decoration.get("cluster_center") and not decoration.get("distance") and not decoration.get("legacy")
    refuse_unless(
        features is not None and bool(plain),
        f"it can't make the encoder's input: {decoration}",
        hint="train it with PillarFeatureNet or BackwardPillarFeatureNet as AWML configures them",
    )
    assert features is not None
    components = [component.name for component in spec.components]
    refuse_unless(components == [ENCODER, HEAD], f"components are {components}", hint=f"{EXPORT_AGAIN} their own names")
    dtypes = {tensor.dtype for part in spec.components for tensor in (*part.inputs, *part.outputs)}
    refuse_unless(
        dtypes == {"float32"}, f"it binds float32, tensors are {sorted(dtypes)}", hint=f"{EXPORT_AGAIN} float32"
    )
    columns, rows = needed.grid_size[0], needed.grid_size[1]
    wanted: list[int | None] = [needed.max_voxels, POINTS_PER_PILLAR, features]
    refuse_unless(
        same_shape(spec.component(ENCODER).inputs[0], wanted),
        f"the encoder's input is {spec.component(ENCODER).inputs[0].shape}, the node's is {wanted}",
        hint=f"{EXPORT_AGAIN} dynamic axes",
    )
    head = spec.component(HEAD)
    refuse_unless(
        same_shape(head.inputs[0], [1, ENCODER_CHANNELS, rows, columns]),
        f"the head's input is {head.inputs[0].shape}, the node's is {[1, ENCODER_CHANNELS, rows, columns]}",
        hint=f"{EXPORT_AGAIN} dynamic axes",
    )
    refuse_unless(
        head.output_names() == list(OUTPUTS),
        f"outputs are {head.output_names()}, the node binds them by position as {list(OUTPUTS)}",
        hint="train it with velocities, and export it with this version",
    )
    for output, channels in zip(head.outputs, (len(spec.classes), *list(OUTPUTS.values())[1:]), strict=True):
        refuse_unless(
            output.shape[1] == channels, f"{output.name} has {output.shape[1]} channels, not {channels}",
            hint="train it with the head of AWML's configs",
        )  # fmt: skip
    return features


def _check_version(version: str) -> None:
    match = re.fullmatch(r"v?(\d+)\.(\d+)", version)
    if match is None or int(match[1]) != 4 or int(match[2]) < 1:
        raise UsageError(
            f"'{version}' is not read by the node", where="--bundle-version", hint="it reads v4.1, v4.2, …"
        )
