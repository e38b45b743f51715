"""What autoware_lidar_centerpoint has built in, and so which models it can run.

32 points a pillar and 32 encoder channels, outputs bound by position, boxes read as w, l, h with the yaw clockwise from
the y axis, sizes as logarithms.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exporter.autoware import same_shape
from exporter.autoware.labels import labels_of
from exporter.autoware.refusals import EXPORT_AGAIN, Refusals
from shared.errors import ManifestError
from shared.spec import ModelSpec

ENCODER, HEAD = "pts_voxel_encoder", "pts_backbone_neck_head"
POINTS_PER_PILLAR = 32
ENCODER_CHANNELS = 32
# Features after decoration, by raw features and voxel center: what the node's kernels can make.
ENCODER_FEATURES: dict[tuple[object, object], int] = {(4, "xyz"): 10, (5, "xyz"): 11, (4, "xy"): 9}
OUTPUTS = {"heatmap": None, "reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2}
# Its name of a class where it is not the label's.
NODE_NAMES = {"MOTORCYCLE": "MOTORBIKE"}


class Needed(BaseModel):
    """The parameters of the model spec that the node must know, or has built in."""

    model_config = ConfigDict(extra="ignore")

    point_cloud_range: Annotated[list[float], Field(min_length=6, max_length=6)]
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


def read(spec: ModelSpec) -> Needed:
    """The parameters of a CenterPoint's spec.

    Raises:
        ManifestError: one is missing or of another type.
    """
    try:
        return Needed.model_validate(spec.parameters)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ManifestError(
            f"parameters.{place}: {first['msg']}", where="model spec", hint=f"{EXPORT_AGAIN} this version"
        ) from error


def encoder_features(needed: Needed) -> int | None:
    """Number of features that the node's kernels feed the encoder, None where they can't make them."""
    decoration = needed.decoration
    plain = decoration.get("cluster_center") and not decoration.get("distance") and not decoration.get("legacy")
    features = ENCODER_FEATURES.get((decoration.get("raw_features"), decoration.get("voxel_center")))
    return features if plain else None


def check_model(spec: ModelSpec, needed: Needed) -> list[str]:
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
    features = encoder_features(needed)
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


def _check_tensors(spec: ModelSpec, needed: Needed, features: int | None, refusals: Refusals) -> None:
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
