"""The building blocks of the deploy config's sections: strict types, ranges, and fields that hold paths.

Numbers and flags are strict: ``"16"`` is not 16 and ``1`` is not true, since a config that does not mean what it says
is worse than an error. Every field carries a description, because the reference is generated from them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, WithJsonSchema
from pydantic_core import PydanticCustomError

DEVICE_PATTERN = re.compile(r"cpu|cuda(:\d+)?")

_UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


class Section(BaseModel):
    """A part of the config: immutable, without undeclared keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class PathField:
    """Marks a field that holds a path. Environment variables (``${NAME}``) and ``~`` are expanded in it.

    Attributes:
        relative_to: ``config``: the loader makes it absolute, from the folder of the config file; ``data``: it stays
            relative to ``data.root``.
    """

    relative_to: Literal["config", "data"]


def _bytes_of(value: Any) -> Any:
    """Bytes from a number with a unit, ``2 GiB``; numbers pass through."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value)
    if match is None or match[2].upper() not in _UNITS:
        raise PydanticCustomError("size", "should be a number of bytes, or a string such as 2 GiB or 512 MiB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _file_name(value: str) -> str:
    path = PurePosixPath(value)
    if not path.name or path.is_absolute() or ".." in path.parts or "\\" in value:
        raise PydanticCustomError("file_name", "should be a file name that stays in its folder of the workspace")
    return value


def _device(value: str) -> str:
    if DEVICE_PATTERN.fullmatch(value) is None:
        raise PydanticCustomError("device", "should be cpu, cuda or cuda:N")
    return value


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise PydanticCustomError(
            "pattern", "should be a regular expression ({reason})", {"reason": str(error)}
        ) from error
    return value


Flag = Annotated[bool, Strict()]
Count = Annotated[int, Strict(), Field(ge=1)]
Index = Annotated[int, Strict(), Field(ge=0)]
Positive = Annotated[float, Strict(), Field(gt=0)]
Name = Annotated[str, Field(min_length=1)]
Bytes = Annotated[
    int,
    BeforeValidator(_bytes_of),
    Strict(),
    Field(gt=0),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^\d+(\.\d+)? *([KMG]i?B|B)?$"}]}
    ),
]
FileName = Annotated[str, AfterValidator(_file_name)]
Device = Annotated[str, AfterValidator(_device)]
Pattern = Annotated[str, AfterValidator(_pattern)]
ConfigPath = Annotated[Path, PathField("config")]
DataPath = Annotated[Path, PathField("data")]
