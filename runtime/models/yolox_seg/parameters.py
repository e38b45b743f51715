"""The parameters of a YOLOX with a mask head, typed and checked."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from runtime.models.yolox.parameters import YoloxParameters, check_component
from runtime.parameters import Parameters, misfit, validated
from shared.several_tasks import classes_of
from shared.spec import ModelSpec

DETECTION, SEGMENTATION = "detection2d", "segmentation2d"


class Mask(Parameters):
    """What becomes of the network's probabilities, see `runtime.models.yolox_seg.mask`."""

    convention: Literal["awml", "autoware"]
    compared_every: int = Field(gt=0, description="Lines and columns of raw probabilities that are compared")


class YoloxSegParameters(YoloxParameters):
    """All of them; rows come raw."""

    output: Literal["raw"]
    mask: Mask


def read_parameters(spec: ModelSpec) -> YoloxSegParameters:
    """The parameters of a YOLOX with a mask head.

    Raises:
        ManifestError: one is missing, unknown or impossible, or they don't fit the spec's component and classes.
    """
    parameters = validated(YoloxSegParameters, spec)
    if parameters.mask.convention == "autoware" and parameters.image.convention.stretched:
        raise misfit("its mask is read as of an image that keeps its shape (autoware), its images are stretched")
    check_component(spec, parameters, len(classes_of(DETECTION, spec.classes)))
    outputs = spec.components[0].outputs
    wanted = [len(classes_of(SEGMENTATION, spec.classes)), parameters.image.height, parameters.image.width]
    if len(outputs) != 2 or outputs[1].shape[1:] != wanted:
        raise misfit(f"the outputs are {[output.shape for output in outputs]}, the second should be a mask of {wanted}")
    return parameters
