"""The parameters of a calibration status model spec, typed and checked."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import ManifestError
from shared.spec import ModelSpec

CHANNELS = 5  # blue, green, red, depth, intensity
CLASSES = ["miscalibrated", "calibrated"]


class CalibrationParameters(BaseModel):
    """All of them.

    Attributes:
        max_depth: points as far as this, or farther, are left out; it becomes 1 in the depth channel [m].
        dilation_size: pixels that a point is widened by in each direction.
        undistort: whether images are undistorted first.
        miscalibration_confidence_threshold: a pair counts as calibrated when the logit of calibrated is above that of
            miscalibrated by more than this (the parameter of Autoware's node).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_depth: float = Field(gt=0)
    dilation_size: int = Field(ge=0)
    undistort: bool
    miscalibration_confidence_threshold: float


def read_parameters(spec: ModelSpec) -> CalibrationParameters:
    """The parameters of a calibration status model.

    Raises:
        ManifestError: one is missing, unknown or impossible, or the classes or the component are not the model's.
    """
    try:
        parameters = CalibrationParameters.model_validate(spec.parameters)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise _wrong(f"parameters{'.' + place if place else ''}: {first['msg']}") from error
    if spec.classes != CLASSES:
        raise _wrong(f"the classes are {spec.classes}, expected {CLASSES}")
    if len(spec.components) != 1 or len(spec.components[0].inputs) != 1 or len(spec.components[0].outputs) != 1:
        raise _wrong("expected one component with one input and one output")
    shape = spec.components[0].inputs[0].shape
    if len(shape) != 4 or shape[1] != CHANNELS:
        raise _wrong(f"the input has the shape {shape}, expected (batch, {CHANNELS}, height, width)")
    return parameters


def _wrong(message: str) -> ManifestError:
    return ManifestError(message, where="model spec", hint="export the model again with this version")
