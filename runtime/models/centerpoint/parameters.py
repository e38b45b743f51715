"""The parameters of a CenterPoint model spec, typed and checked: what the exporter wrote is what the pipeline reads."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from runtime.lidar.grid import Range, VoxelizedPoints
from runtime.parameters import Parameters, misfit, validated
from shared.spec import ModelSpec

ENCODER = "pts_voxel_encoder"
HEAD = "pts_backbone_neck_head"

_REQUIRED_OUTPUTS = {"heatmap", "reg", "height", "dim", "rot"}
_OUTPUTS = _REQUIRED_OUTPUTS | {"vel"}


class Decoration(Parameters):
    """Which features a point gets, see `runtime.models.centerpoint.decorate`."""

    raw_features: int = Field(ge=3, description="Raw features of a point, x, y and z first")
    cluster_center: bool = Field(description="Offset from the mean of the pillar's points: 3 features")
    voxel_center: Literal["xyz", "xy", "none"] = Field(description="Axes of the offset from the pillar's center")
    distance: bool = Field(default=False, description="Distance from the origin: 1 feature")
    legacy: bool = Field(default=False, description="Raw x, y, z are replaced by the offset from the pillar's center")

    @property
    def center_axes(self) -> int:
        """Axes along which a point gets its offset from the pillar's center: x, y, z, or x, y, or none."""
        return {"xyz": 3, "xy": 2, "none": 0}[self.voxel_center]

    @property
    def num_features(self) -> int:
        """F, the features of a decorated point: 9, 10 or 11 in AWML's models."""
        return self.raw_features + 3 * self.cluster_center + self.center_axes + self.distance


class BoxCoder(Parameters):
    """Limits of decoding, see `runtime.models.centerpoint.decode`."""

    max_num: int = Field(gt=0, description="Boxes per task at most")
    score_threshold: float | None = Field(default=None, ge=0, lt=1, description="Scores must lie above it")
    post_center_range: Range = Field(description="x, y, z minimum, x, y, z maximum of centers [m], bounds included")


class CircleNms(Parameters):
    """Suppression, see `runtime.lidar.circle_nms`. ``pre_max_size`` has no effect, as in mmdetection3d."""

    type: Literal["circle"]
    radius: list[float] = Field(min_length=1, description="Squared distance [m²], one per task")
    pre_max_size: int | None = None
    post_max_size: int = Field(gt=0)


class Task(Parameters):
    """One head: its classes, the names of its outputs by what they mean, and its resolution where it has its own."""

    classes: list[str] = Field(min_length=1)
    outputs: dict[str, str]
    out_size_factor: int | None = Field(default=None, gt=0, description="Voxels per output cell, if not the model's")

    @field_validator("outputs")
    @classmethod
    def _outputs_are_known(cls, outputs: dict[str, str]) -> dict[str, str]:
        if not _REQUIRED_OUTPUTS <= set(outputs) <= _OUTPUTS:
            raise ValueError(f"are {sorted(outputs)}, expected {sorted(_REQUIRED_OUTPUTS)} and possibly vel")
        return outputs


class CenterPointParameters(VoxelizedPoints):
    """All of them: those of points and voxels, and the rest."""

    decoration: Decoration
    encoder_channels: int = Field(gt=0)
    out_size_factor: int = Field(gt=0, description="Voxels per output cell, along either axis")
    norm_bbox: bool = Field(description="Sizes are logarithms")
    rot_y_axis_reference: bool = Field(default=False, description="Sizes and rotation in Autoware's convention")
    bbox_coder: BoxCoder
    nms: CircleNms
    tasks: list[Task] = Field(min_length=1)

    def factor(self, task: Task) -> int:
        """Voxels per output cell of a task, along either axis."""
        return self.out_size_factor if task.out_size_factor is None else task.out_size_factor

    @model_validator(mode="after")
    def _fits_together(self) -> CenterPointParameters:
        if self.grid_size[2] != 1:
            raise ValueError(f"grid_size has {self.grid_size[2]} cells along z; pillars have 1")
        if len(self.points.use_dim) != self.decoration.raw_features:
            raise ValueError(f"decoration.raw_features is {self.decoration.raw_features}, points.use_dim names "
                             f"{len(self.points.use_dim)}")  # fmt: skip
        if len(self.nms.radius) != len(self.tasks):
            raise ValueError(f"nms.radius has {len(self.nms.radius)} entries for {len(self.tasks)} tasks")
        return self


def read_parameters(spec: ModelSpec) -> CenterPointParameters:
    """The parameters of a CenterPoint model.

    Raises:
        ManifestError: one is missing, unknown or impossible, or they don't fit the spec's classes and components.
    """
    parameters = validated(CenterPointParameters, spec)
    classes = [name for task in parameters.tasks for name in task.classes]
    if classes != spec.classes:
        raise misfit(f"parameters.tasks has the classes {classes}, the model has {spec.classes}")
    outputs = {name for component in spec.components for name in component.output_names()}
    missing = sorted({name for task in parameters.tasks for name in task.outputs.values()} - outputs)
    if missing:
        raise misfit(f"parameters.tasks names the outputs {missing}, which no component has")
    return parameters
