"""The parameters of a YOLOX model spec, typed and checked: what the exporter wrote is what the pipeline reads."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from runtime.models.yolox.letterbox import CONVENTIONS
from shared.errors import ManifestError
from shared.spec import ModelSpec

Three = tuple[float, float, float]

#: Outputs of a component that ends in suppression, in order.
DETECTION_OUTPUTS = ("num_detections", "detection_boxes", "detection_scores", "detection_classes")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageParameters(_Part):
    """The network's input, see `runtime.models.yolox.letterbox`."""

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    fill: int = Field(ge=0, le=255)
    color: Literal["bgr", "rgb"]
    mean: Three | None = None
    std: Three | None = None
    resize: str = Field(description="Name of the convention")

    @model_validator(mode="after")
    def _fits_together(self) -> ImageParameters:
        if self.resize not in CONVENTIONS:
            raise ValueError(f"resize '{self.resize}' is unknown, there are: {', '.join(CONVENTIONS)}")
        if (self.mean is None) != (self.std is None) or (self.std is not None and min(self.std) <= 0):
            raise ValueError("mean and std go together, and std is positive")
        return self


class Nms(_Part):
    """Suppression, see `runtime.models.yolox.nms`."""

    convention: Literal["mmdet", "autoware"]
    iou_threshold: float = Field(gt=0, le=1)
    class_agnostic: bool
    max_boxes: int | None = Field(default=None, gt=0)


class YoloxParameters(_Part):
    """All of them."""

    image: ImageParameters
    strides: list[int] = Field(min_length=1)
    output: Literal["raw", "decoded", "detections"]
    score_threshold: float = Field(ge=0, lt=1)
    nms: Nms

    def rows(self) -> int:
        """Rows of the network's output."""
        return sum((self.image.height // stride) * (self.image.width // stride) for stride in self.strides)


def read_parameters(spec: ModelSpec) -> YoloxParameters:
    """The parameters of a YOLOX model.

    Raises:
        ManifestError: one is missing, unknown or impossible, or they don't fit the spec's component.
    """
    try:
        parameters = YoloxParameters.model_validate(spec.parameters)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise _wrong(f"parameters{'.' + place if place else ''}: {first['msg']}") from error
    if len(spec.components) != 1 or len(spec.components[0].inputs) != 1:
        raise _wrong("a YOLOX is one component with one input")
    component = spec.components[0]
    image = parameters.image
    if component.inputs[0].shape[1:] != [3, image.height, image.width]:
        raise _wrong(f"the input is {component.inputs[0].shape}, parameters.image says {image.height} x {image.width}")
    if parameters.output == "detections":
        if tuple(component.output_names()) != DETECTION_OUTPUTS:
            raise _wrong(f"the outputs are {component.output_names()}, expected {list(DETECTION_OUTPUTS)}")
    elif component.outputs[0].shape[1:] != [parameters.rows(), 5 + len(spec.classes)]:
        raise _wrong(
            f"the output is {component.outputs[0].shape}, the strides and classes make "
            f"{[parameters.rows(), 5 + len(spec.classes)]}"
        )
    return parameters


def _wrong(message: str) -> ManifestError:
    return ManifestError(message, where="model spec", hint="export the model again with this version")
