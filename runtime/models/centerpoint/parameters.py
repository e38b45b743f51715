"""The parameters of a CenterPoint model spec, typed and checked: what the exporter wrote is what the pipeline reads."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from shared.data import PointLoading
from shared.errors import ManifestError
from shared.spec import ModelSpec

Range = tuple[float, float, float, float, float, float]

# Cell numbers are int32, and the table of them has one entry a cell.
_MAX_CELLS = 2**31 - 1
_REQUIRED_OUTPUTS = {"heatmap", "reg", "height", "dim", "rot"}
_OUTPUTS = _REQUIRED_OUTPUTS | {"vel"}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class DecorationParameters(_Part):
    """Which features a point gets, see `runtime.models.centerpoint.decorate`."""

    raw_features: int = Field(ge=3)
    cluster_center: bool
    voxel_center: Literal["xyz", "xy", "none"]
    distance: bool = False
    legacy: bool = False


class BoxCoder(_Part):
    """Limits of decoding, see `runtime.models.centerpoint.decode`."""

    max_num: int = Field(gt=0)
    score_threshold: float | None = Field(default=None, ge=0, lt=1)
    post_center_range: Range


class CircleNms(_Part):
    """Suppression, see `runtime.models.centerpoint.circle_nms`. ``pre_max_size`` has no effect, as in mmdetection3d."""

    type: Literal["circle"]
    radius: list[float] = Field(min_length=1, description="Squared distance [m²], one per task")
    pre_max_size: int | None = None
    post_max_size: int = Field(gt=0)


class Task(_Part):
    """One head: its classes, and the names of its outputs by what they mean."""

    classes: list[str] = Field(min_length=1)
    outputs: dict[str, str]

    @field_validator("outputs")
    @classmethod
    def _outputs_are_known(cls, outputs: dict[str, str]) -> dict[str, str]:
        if not _REQUIRED_OUTPUTS <= set(outputs) <= _OUTPUTS:
            raise ValueError(f"are {sorted(outputs)}, expected {sorted(_REQUIRED_OUTPUTS)} and possibly vel")
        return outputs


class CenterPointParameters(_Part):
    """All of them."""

    point_cloud_range: Range
    voxel_size: tuple[float, float, float]
    grid_size: tuple[int, int, int]
    max_points_per_voxel: int = Field(gt=0)
    max_voxels: int = Field(gt=0)
    points: PointLoading
    decoration: DecorationParameters
    encoder_channels: int = Field(gt=0)
    out_size_factor: int = Field(gt=0)
    norm_bbox: bool
    rot_y_axis_reference: bool = False
    bbox_coder: BoxCoder
    nms: CircleNms
    tasks: list[Task] = Field(min_length=1)

    @field_validator("points", mode="before")
    @classmethod
    def _points_have_no_unknown_key(cls, points: Any) -> Any:
        # A plain dataclass ignores keys that it does not have.
        known = {field.name for field in fields(PointLoading)}
        if isinstance(points, dict) and not points.keys() <= known:
            raise ValueError(f"unknown key {sorted(points.keys() - known)[0]}")
        return points

    @model_validator(mode="after")
    def _fits_together(self) -> CenterPointParameters:
        cells = self.grid_size[0] * self.grid_size[1] * self.grid_size[2]
        if min(self.voxel_size) <= 0 or min(self.grid_size) <= 0 or cells > _MAX_CELLS:
            raise ValueError(f"a grid of {self.grid_size} voxels of {self.voxel_size} m can't be")
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
    try:
        parameters = CenterPointParameters.model_validate(spec.parameters)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise _wrong(f"parameters{'.' + place if place else ''}: {first['msg']}") from error
    classes = [name for task in parameters.tasks for name in task.classes]
    if classes != spec.classes:
        raise _wrong(f"parameters.tasks has the classes {classes}, the model has {spec.classes}")
    outputs = {name for component in spec.components for name in component.output_names()}
    missing = sorted({name for task in parameters.tasks for name in task.outputs.values()} - outputs)
    if missing:
        raise _wrong(f"parameters.tasks names the outputs {missing}, which no component has")
    return parameters


def _wrong(message: str) -> ManifestError:
    return ManifestError(message, where="model spec", hint="export the model again with this version")
