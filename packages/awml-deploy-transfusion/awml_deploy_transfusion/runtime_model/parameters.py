"""The parameters of a TransFusion's spec, typed and checked: what the exporter wrote is what the pipeline reads."""

from __future__ import annotations

from pydantic import Field

from awml_deploy_transfusion.names import COMPONENT, INPUTS, OUTPUTS
from runtime.lidar.grid import Range, VoxelizedPoints
from runtime.parameters import Parameters, misfit, validated
from shared.spec import ModelSpec


class CircleNms(Parameters):
    """Suppression among the boxes of one class."""

    label: int = Field(ge=0)
    radius: float = Field(ge=0, description="Squared distance [m²]")
    most: int = Field(gt=0, description="Boxes of the class that are kept at most")


class TransFusionParameters(VoxelizedPoints):
    """All of them: those of points and voxels, and the rest."""

    out_size_factor: int = Field(gt=0, description="Voxels per cell of the map, along either axis")
    post_center_range: Range = Field(description="Bounds of the centers of bottom faces [m], included")
    score_threshold: float | None = Field(default=None, ge=0, lt=1, description="Scores must lie above it")
    circle_nms: list[CircleNms] = Field(default_factory=list, description="Classes in which boxes are suppressed")


def read_parameters(spec: ModelSpec) -> TransFusionParameters:
    """The parameters of a TransFusion.

    Raises:
        ManifestError: one is missing, unknown or impossible, or they don't fit the spec's classes and components.
    """
    parameters = validated(TransFusionParameters, spec)
    components = {component.name: component for component in spec.components}
    if list(components) != [COMPONENT]:
        raise misfit(f"has the components {list(components)}; a TransFusion has {COMPONENT} alone")
    network = components[COMPONENT]
    tensors = [tensor.name for tensor in (*network.inputs, *network.outputs)]
    if tensors != [*INPUTS, *OUTPUTS]:
        raise misfit(f"{COMPONENT} has the tensors {tensors}, expected {[*INPUTS, *OUTPUTS]}")
    wanted = [parameters.max_points_per_voxel, len(parameters.points.use_dim)]
    if network.inputs[0].shape[1:] != wanted:
        raise misfit(f"{network.inputs[0].name} has the shape {network.inputs[0].shape}, parameters say (N, {wanted})")
    if any(group.label >= len(spec.classes) for group in parameters.circle_nms):
        raise misfit(f"parameters.circle_nms has a label that none of the {len(spec.classes)} classes has")
    return parameters
