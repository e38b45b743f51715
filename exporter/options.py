"""``model.options`` of a deploy config: each kind of model has its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.errors import ConfigError


class ModelOptions(BaseModel):
    """What the options of a kind of model derive from: unknown keys are errors, and values are not converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Options = TypeVar("Options", bound=ModelOptions)


def checked_options(schema: type[Options], options: Mapping[str, Any], model: str) -> Options:
    """The options as a schema has them.

    Args:
        schema: of this kind of model.
        options: ``model.options`` as it is written.
        model: name of the kind, for the error.

    Raises:
        ConfigError: an unknown option or a wrong value.
    """
    try:
        return schema.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            str(first["msg"]),
            where="model.options" + "".join(f".{key}" for key in first["loc"]),
            hint=f"options of {model}: {', '.join(schema.model_fields)}",
        ) from error
