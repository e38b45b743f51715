"""The parameters of an FRNet's model spec, typed and checked."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from runtime.lidar.loading import LoadedPoints
from runtime.parameters import Parameters, misfit, validated
from shared.spec import ModelSpec

FEATURES = 4
Gaps = Literal["awml", "autoware"]


class RangeImage(Parameters):
    """A grid of directions: rows from the highest to the lowest elevation, columns clockwise from straight behind."""

    height: int = Field(gt=0)
    width: int = Field(gt=0)


class Sensor(Parameters):
    """Where the lidar is, and what it sees."""

    position: tuple[float, float, float] = Field(description="In the frame of the points: x, y, z [m]")
    fov_up: float = Field(ge=-90, le=90, description="Highest elevation [deg]")
    fov_down: float = Field(ge=-90, le=90, description="Lowest elevation [deg]")

    @model_validator(mode="after")
    def _sees_something(self) -> Sensor:
        if self.fov_up == 0 == self.fov_down:
            raise ValueError("fov_up and fov_down are 0")
        return self


class FRNetParameters(Parameters):
    """All of them."""

    points: LoadedPoints
    sensor: Sensor
    interpolation: RangeImage = Field(description="In which gaps between points are filled")
    gaps: Gaps = Field(default="awml", description="Between which points they are filled, see interpolate.py")
    frustums: RangeImage = Field(description="Points in one pixel are a frustum")
    form: Literal["padded", "scatter"] = Field(description="Inputs of the network, see exporter.models.frnet.frustums")
    strides: list[int] = Field(min_length=1, description="Form padded: of the network's maps, ascending")
    points_per_frustum: int = Field(gt=0, description="Form padded: points of a frustum that the network looks at")
    ignored_class: int | None = Field(default=None, ge=0, description="The network's answer for a point of no class")

    @model_validator(mode="after")
    def _fits_together(self) -> FRNetParameters:
        if len(self.points.use_dim) != FEATURES or self.points.merge_sweeps or self.points.range_filter is not None:
            raise ValueError("points are of one sweep, all of them, with x, y, z and intensity")
        height, width = self.frustums.height, self.frustums.width
        if min(self.strides) < 1 or any(height % stride or width % stride for stride in self.strides):
            raise ValueError(f"strides {self.strides} don't divide {height} x {width} frustums")
        return self


def read_parameters(spec: ModelSpec) -> FRNetParameters:
    """The parameters of an FRNet.

    Raises:
        ManifestError: one is missing, unknown or impossible, or they don't fit the spec's classes and components.
    """
    parameters = validated(FRNetParameters, spec)
    if len(spec.components) != 1:
        raise misfit(f"has {len(spec.components)} components, an FRNet is one")
    rows = len(spec.classes) + (parameters.ignored_class is not None)
    shape = spec.components[0].outputs[0].shape
    if shape[-1] != rows or parameters.ignored_class not in (None, len(spec.classes)):
        raise misfit(f"has {len(spec.classes)} classes and answers {shape[-1]}; the class to be ignored is the last")
    return parameters
