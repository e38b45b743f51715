"""The model spec: what every later tool needs to know about a model, so that none needs the training framework."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TensorSpec(BaseModel):
    """One input or output of a component."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    dtype: str = Field(description="NumPy dtype name, for example float32")
    shape: list[int | str] = Field(description="One entry per axis: a size, or the name of a dynamic axis")


class ComponentSpec(BaseModel):
    """One exported part of a model, in the order in which they run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    inputs: list[TensorSpec] = Field(min_length=1)
    outputs: list[TensorSpec] = Field(min_length=1)
    onnx: str = Field(description="Artifact: the ONNX file")
    program: str | None = Field(default=None, description="Artifact: the torch.export program")

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
