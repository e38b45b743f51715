"""The parameters of a calibration status model spec, typed and checked."""

from __future__ import annotations

from pydantic import Field

from runtime.parameters import Parameters, misfit, validated
from shared.spec import ModelSpec

CHANNELS = 5  # blue, green, red, depth, intensity
POINT_COLUMNS = 4  # x, y, z, intensity
CLASSES = ["miscalibrated", "calibrated"]


class CalibrationParameters(Parameters):
    """All of them.

    Attributes:
        max_depth: points as far as this, or farther, are left out; it becomes 1 in the depth channel [m].
        dilation_size: pixels that a point is widened by in each direction.
        undistort: whether images are undistorted first.
        miscalibration_confidence_threshold: a pair counts as calibrated when the logit of calibrated is above that of
            miscalibrated by more than this (the parameter of Autoware's node).
    """

    max_depth: float = Field(gt=0)
    dilation_size: int = Field(ge=0)
    undistort: bool
    miscalibration_confidence_threshold: float


def read_parameters(spec: ModelSpec) -> CalibrationParameters:
    """The parameters of a calibration status model.

    Raises:
        ManifestError: one is missing, unknown or impossible, or the classes or the component are not the model's.
    """
    parameters = validated(CalibrationParameters, spec)
    if spec.classes != CLASSES:
        raise misfit(f"the classes are {spec.classes}, expected {CLASSES}")
    if len(spec.components) != 1 or len(spec.components[0].inputs) != 1 or len(spec.components[0].outputs) != 1:
        raise misfit("expected one component with one input and one output")
    shape = spec.components[0].inputs[0].shape
    if len(shape) != 4 or shape[1] != CHANNELS:
        raise misfit(f"the input has the shape {shape}, expected (batch, {CHANNELS}, height, width)")
    return parameters
