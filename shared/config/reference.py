"""Renders the reference of the config (docs/configuration.md) and its JSON Schema from the models.

``python -m shared.config.reference --write`` writes both files, ``--check`` says whether they are up to date.
"""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin


def choices_of(annotation: Any) -> list[str]:
    """The values that a type allows by name; empty when it does not list them."""
    if get_origin(annotation) is Annotated:
        return choices_of(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [choice for argument in get_args(annotation) for choice in choices_of(argument)]
    return [str(choice) for choice in get_args(annotation)] if get_origin(annotation) is Literal else []
