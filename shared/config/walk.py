"""Walks the types of the config: which keys a section has, what lies under a key path, which values are paths."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from shared.config.section import PathField, Section

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Shape:
    """What a value of some type may hold.

    Attributes:
        kind: ``section`` has named keys, ``mapping`` any keys, ``sequence`` positions, ``path`` is a path, ``value``
            anything else that holds no further keys, ``free`` is JSON of any form.
        section: the section's class.
        item: type of a mapping's or sequence's items, and of the keys of a section that are not declared.
        path: what the path is relative to.
    """

    kind: Literal["section", "mapping", "sequence", "path", "value", "free"]
    section: type[Section] | None = None
    item: Any = None
    path: PathField | None = None


def shape_of(annotation: Any) -> Shape:
    """The `Shape` of a type; ``Annotated`` and ``| None`` are looked through."""
    bare, path = _bare(annotation)
    kind: Literal["section", "mapping", "sequence", "path", "value", "free"] = "value"
    if path is not None:
        kind = "path"
    elif bare is Any:
        kind = "free"
    elif get_origin(bare) is dict:
        kind = "mapping"
    elif get_origin(bare) in (list, tuple):
        kind = "sequence"
    elif isinstance(bare, type) and get_origin(bare) is None and issubclass(bare, Section):
        return Shape("section", section=bare, item=_undeclared(bare))
    arguments = get_args(bare)
    item = arguments[1] if kind == "mapping" else arguments[0] if kind == "sequence" else None
    return Shape(kind, item=item, path=path)


def _bare(annotation: Any) -> tuple[Any, PathField | None]:
    """A type without ``Annotated`` and ``| None``, and what it is relative to if it is a path."""
    path = None
    while get_origin(annotation) in (Annotated, Union, types.UnionType):
        if get_origin(annotation) is Annotated:
            annotation, *metadata = get_args(annotation)
            path = next((item for item in metadata if isinstance(item, PathField)), path)
        else:
            annotation = next(argument for argument in get_args(annotation) if argument is not type(None))
    return annotation, path


@functools.cache
def _undeclared(section: type[Section]) -> Any | None:
    """Type of the keys that a section allows without declaring them; None where it allows none."""
    if section.model_config.get("extra") != "allow":
        return None
    return get_args(get_type_hints(section, include_extras=True)["__pydantic_extra__"])[1]


@functools.cache
def field_types(section: type[Section]) -> dict[str, Any]:
    """Name and full type (``Annotated`` kept) of every field, in the order of their declaration."""
    hints = get_type_hints(section, include_extras=True)
    return {name: hints[name] for name in section.model_fields}


def map_items(value: Any, annotation: Any, change: Callable[[Any, Any, Any], Any]) -> Any:
    """A copy of a value with everything in it changed: ``change`` gets key, item, and the item's type.

    Values that hold nothing are returned unchanged; keys that a section does not have are of type ``Any``.
    """
    shape = shape_of(annotation)
    if shape.kind == "sequence" and isinstance(value, list):
        return [change(position, item, shape.item) for position, item in enumerate(value)]
    if shape.kind in ("section", "mapping") and isinstance(value, dict):
        types = {} if shape.section is None else field_types(shape.section)
        other = Any if shape.item is None else shape.item
        return {key: change(key, item, types.get(key, other)) for key, item in value.items()}
    return value


def type_at(annotation: Any, keys: Sequence[str | int]) -> Any | None:
    """The type under a key path, or None when no such key exists."""
    for key in keys:
        shape = shape_of(annotation)
        if shape.kind == "free":
            return Any
        if shape.kind == "section" and shape.section is not None and key in field_types(shape.section):
            annotation = field_types(shape.section)[str(key)]
        elif shape.item is not None and (shape.kind != "sequence" or isinstance(key, int)):
            annotation = shape.item
        else:
            return None
    return annotation


def names_at(annotation: Any, keys: Sequence[str | int]) -> list[str]:
    """The keys that a section under a key path has; empty when it is not a section."""
    section_type = type_at(annotation, keys)
    shape = shape_of(section_type) if section_type is not None else Shape("value")
    return list(field_types(shape.section)) if shape.section is not None else []


def key_text(keys: Sequence[str | int]) -> str:
    """A key path as users write it: ``verification.scenarios.both[0].ref_backend``."""
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text


def choices_of(annotation: Any) -> list[str]:
    """The values that a type allows by name; empty when it does not list them."""
    if get_origin(annotation) is Annotated:
        return choices_of(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [choice for argument in get_args(annotation) for choice in choices_of(argument)]
    return [str(choice) for choice in get_args(annotation)] if get_origin(annotation) is Literal else []
