"""The parameters of a model spec, typed: what the exporter wrote, checked once, and then what the steps take."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.errors import ManifestError
from shared.spec import ModelSpec


class Parameters(BaseModel):
    """A group of parameters. Derive from it: unknown keys are refused, and nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


ParametersT = TypeVar("ParametersT", bound=Parameters)


def validated(kind: type[ParametersT], spec: ModelSpec) -> ParametersT:
    """The parameters of a model.

    Raises:
        ManifestError: one is missing, unknown or impossible; says which.
    """
    try:
        return kind.model_validate(spec.parameters)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(["parameters", *(str(part) for part in first["loc"])])
        raise misfit(f"{place}: {first['msg']}") from error


def misfit(message: str) -> ManifestError:
    """The error for a spec that is not one of its kind of model."""
    return ManifestError(message, where="model spec", hint="export the model again with this version")
