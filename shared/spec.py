"""The model spec: what every later tool needs to know about a model, so that none needs the training framework."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

_DTYPE = r"^(bool|u?int(8|16|32|64)|b?float(16|32|64)|complex(64|128))$"
Size = Annotated[int, Field(ge=0, lt=2**31)]
Axis = Annotated[str, Field(min_length=1, max_length=1000)]


class TensorSpec(BaseModel):
    """One input or output of a component."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=1000)
    dtype: str = Field(description="NumPy dtype name, for example float32", pattern=_DTYPE)
    shape: list[Size | Axis] = Field(
        description="One entry per axis: a size, or the name of a dynamic axis", max_length=32
    )

    def accepts(self, shape: Sequence[int | str | None]) -> bool:
        """Whether a file's tensor can be this one.

        Args:
            shape: of the file's tensor, one entry per axis: a size, the name of a dynamic axis, or None.

        Returns:
            False for another number of axes, another size, or a dynamic axis where this one has a size and the other
            way round (a transposed tensor). A dynamic axis alone fits any size: files may be made for one.
        """
        if len(shape) != len(self.shape):
            return False
        pairs = list(zip(self.shape, shape, strict=True))
        if any(isinstance(own, int) and isinstance(other, int) and own != other for own, other in pairs):
            return False
        opened = any(isinstance(own, int) and not isinstance(other, int) for own, other in pairs)
        closed = any(isinstance(own, str) and isinstance(other, int) for own, other in pairs)
        return not (opened and closed)


class AxisSizes(BaseModel):
    """The sizes that a dynamic axis has in use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: int = Field(ge=1, description="Smallest")
    opt: int = Field(description="What engines are tuned for: a typical size")
    max: int = Field(description="Largest")
    counter: str | None = Field(
        default=None, description="Counter of the runs that gives a sample's size, where samples differ: voxels …"
    )

    @model_validator(mode="after")
    def _are_in_order(self) -> AxisSizes:
        if not self.min <= self.opt <= self.max:
            raise ValueError(f"sizes must be min <= opt <= max, not {self.min}, {self.opt}, {self.max}")
        return self

    @staticmethod
    def fixed(size: int) -> AxisSizes:
        """An axis that has the same size in every request."""
        return AxisSizes(min=size, opt=size, max=size)


class ComponentSpec(BaseModel):
    """One exported part of a model, in the order in which they run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    inputs: list[TensorSpec] = Field(min_length=1)
    outputs: list[TensorSpec] = Field(min_length=1)
    onnx: str = Field(description="Artifact: the ONNX file")
    program: str | None = Field(default=None, description="Artifact: the torch.export program")
    axes: dict[str, AxisSizes] = Field(default_factory=dict, description="Sizes of the inputs' dynamic axes, by name")
    keep_fp32: list[str] = Field(
        default_factory=list,
        description="Regular expressions on ONNX node names, matched from the start: they lose too much below FP32",
    )

    @model_serializer(mode="wrap")
    def _without_what_is_empty(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A spec written before these were known keeps its hash, and what was run with it stays up to date.
        value: dict[str, Any] = serialize(self)
        return {key: item for key, item in value.items() if item or key not in ("axes", "keep_fp32")}

    def output_names(self) -> list[str]:
        """Names of the outputs, in the order of the ONNX file."""
        return [output.name for output in self.outputs]


class ModelSpec(BaseModel):
    """A deployed model: its components and the parameters of its pre- and post-processing.

    ``parameters`` belong to the model's pipeline, which validates them with a typed model of its own
    (``runtime/models/<model>/parameters.py``): a new model needs no entry here.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="Names the pipeline, for example centerpoint")
    task: str = Field(description="Names the task (`shared.tasks`), for example detection3d")
    classes: list[str] = Field(min_length=1)
    components: list[ComponentSpec] = Field(min_length=1)
    parameters: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_are_unique(self) -> ModelSpec:
        names = [component.name for component in self.components]
        if len(set(names)) != len(names):
            raise ValueError(f"component names repeat: {names}")
        return self

    def component(self, name: str) -> ComponentSpec:
        """The component called ``name``.

        Raises:
            KeyError: there is none.
        """
        for component in self.components:
            if component.name == name:
                return component
        raise KeyError(name)
