"""The parameters of a YOLOX model spec, typed and checked: what the exporter wrote is what the steps take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from runtime.parameters import Parameters, misfit, validated
from shared.spec import ModelSpec

Three = tuple[float, float, float]

#: Outputs of a component that ends in suppression, in order.
DETECTION_OUTPUTS = ("num_detections", "detection_boxes", "detection_scores", "detection_classes")

#: Columns of an output row before the class scores.
BOX_COLUMNS = 5


@dataclass(frozen=True)
class Convention:
    """How a program scales images.

    Attributes:
        cubic: cubic interpolation; otherwise linear.
        round_size: the scaled size is rounded to whole pixels; otherwise cut off.
        scale_per_axis: boxes go back by the ratio of the sizes of each axis; otherwise by the common scale.
        stretched: the image fills the input, whatever its shape; otherwise it keeps it.
    """

    cubic: bool
    round_size: bool
    scale_per_axis: bool
    stretched: bool = False


#: mmdet 3 (mmcv's ``imrescale``), and without ``keep_ratio`` (``imresize``); Megvii's YOLOX (``preproc``); Autoware's
#: node where it scales on the CPU (its GPU path interpolates linearly: that is ``megvii``).
CONVENTIONS: Mapping[str, Convention] = {
    "mmdet": Convention(cubic=False, round_size=True, scale_per_axis=True),
    "mmdet_stretched": Convention(cubic=False, round_size=True, scale_per_axis=True, stretched=True),
    "megvii": Convention(cubic=False, round_size=False, scale_per_axis=False),
    "autoware": Convention(cubic=True, round_size=False, scale_per_axis=False),
}


class Letterbox(Parameters):
    """What the network's input is made of, see `runtime.models.yolox.letterbox`."""

    height: int = Field(gt=0, description="Of the input [px]")
    width: int = Field(gt=0, description="Of the input [px]")
    fill: int = Field(ge=0, le=255, description="Gray level of what the image does not cover")
    color: Literal["bgr", "rgb"] = Field(description="Order of the channels; images are read as bgr")
    mean: Three | None = Field(default=None, description="Subtracted, per channel in the network's order, 0-255")
    std: Three | None = Field(default=None, description="Divided by, as the mean; without both values stay 0-255")
    resize: str = Field(description="Name of the convention")

    @model_validator(mode="after")
    def _fits_together(self) -> Letterbox:
        if self.resize not in CONVENTIONS:
            raise ValueError(f"resize '{self.resize}' is unknown, there are: {', '.join(CONVENTIONS)}")
        if (self.mean is None) != (self.std is None) or (self.std is not None and min(self.std) <= 0):
            raise ValueError("mean and std go together, and std is positive")
        return self

    @property
    def convention(self) -> Convention:
        """How images are scaled."""
        return CONVENTIONS[self.resize]


class Nms(Parameters):
    """Suppression, see `runtime.models.yolox.nms`."""

    convention: Literal["mmdet", "megvii", "autoware"]
    iou_threshold: float = Field(gt=0, le=1)
    class_agnostic: bool
    max_boxes: int | None = Field(default=None, gt=0)


class YoloxParameters(Parameters):
    """All of them."""

    image: Letterbox
    strides: list[int] = Field(min_length=1)
    output: Literal["raw", "decoded", "detections"]
    score_threshold: float = Field(ge=0, lt=1)
    nms: Nms

    @property
    def rows(self) -> int:
        """Rows of the network's output."""
        return sum((self.image.height // stride) * (self.image.width // stride) for stride in self.strides)

    @property
    def inclusive(self) -> bool:
        """Whether a score equal to the threshold passes (mmdet) or not (Megvii, Autoware)."""
        return self.nms.convention == "mmdet"


def read_parameters(spec: ModelSpec) -> YoloxParameters:
    """The parameters of a YOLOX model.

    Raises:
        ManifestError: one is missing, unknown or impossible, or they don't fit the spec's component.
    """
    parameters = validated(YoloxParameters, spec)
    check_component(spec, parameters, len(spec.classes))
    return parameters


def check_component(spec: ModelSpec, parameters: YoloxParameters, num_classes: int) -> None:
    """Check that the parameters fit the spec's component.

    Args:
        spec: the model.
        parameters: of the model.
        num_classes: of the boxes.

    Raises:
        ManifestError: they don't.
    """
    if len(spec.components) != 1 or len(spec.components[0].inputs) != 1:
        raise misfit("a YOLOX is one component with one input")
    component = spec.components[0]
    image = parameters.image
    if component.inputs[0].shape[1:] != [3, image.height, image.width]:
        raise misfit(f"the input is {component.inputs[0].shape}, parameters.image says {image.height} x {image.width}")
    row_shape = [parameters.rows, BOX_COLUMNS + num_classes]
    if parameters.output == "detections":
        if tuple(component.output_names()) != DETECTION_OUTPUTS:
            raise misfit(f"the outputs are {component.output_names()}, expected {list(DETECTION_OUTPUTS)}")
    elif component.outputs[0].shape[1:] != row_shape:
        raise misfit(f"the output is {component.outputs[0].shape}, the strides and classes make {row_shape}")
