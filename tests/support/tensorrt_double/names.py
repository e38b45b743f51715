"""Which names a release of TensorRT has: those that `compat.OPTIONAL` claims, as the contract test proves."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from tests.support.trt_names import is_in
from trt_builder import compat


class Names:
    """The names of a release, for example of ``10.9.0``."""

    def __init__(self, version: str) -> None:
        self._numbers = tuple(int(part) for part in version.split(".")[:2])

    def has(self, name: str) -> bool:
        """Whether it has ``BuilderFlag.FP16``; names that are not optional are in every release."""
        return name not in compat.OPTIONAL or is_in(compat.OPTIONAL[name], self._numbers)

    def enum(self, owner: str, *always: str) -> Any:
        """An enum with the members of every release and the optional ones of this; values are alike in all releases."""
        optional = [name.partition(".")[2] for name in compat.OPTIONAL if name.startswith(f"{owner}.")]
        members = {member: value for value, member in enumerate((*always, *optional)) if self.has(f"{owner}.{member}")}
        return IntEnum(owner, members)

    def cls(self, owner: str, blueprint: type) -> Any:
        """A class without the optional members that this release lacks."""
        members = {
            member: value
            for member, value in vars(blueprint).items()
            if member not in ("__dict__", "__weakref__") and self.has(f"{owner}.{member}")
        }
        return type(owner, (), members)
