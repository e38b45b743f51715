"""Fields that name an extensible thing: a task, a data format, a backend.

A config that is read from a file may name whatever is installed here. One that a manifest holds was checked when it was
recorded, maybe on another machine; tools that don't need the member work without it, the others report that it is
missing.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import PydanticCustomError, core_schema

from shared import plugins

#: Context of a validation: the config is one that a manifest holds.
RECORDED = {"recorded": True}


@dataclass(frozen=True)
class MemberOf:
    """Marks a text field that names a member of a group of plug-ins.

    Attributes:
        group: where the names are from.
        also: names that are valid although they are not members.
        joint: what may stand between the names of several members; None where one is named alone.
    """

    group: plugins.Group
    also: tuple[str, ...] = ()
    joint: str | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.with_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {**handler(schema), "examples": list(dict.fromkeys([*plugins.ours(self.group), *self.also]))}

    def _check(self, value: str, info: ValidationInfo) -> str:
        if info.context != RECORDED and (problem := self.problem(value)) is not None:
            raise PydanticCustomError("not_a_member", "{problem}", {"problem": problem})
        return value

    def problem(self, value: str) -> str | None:
        """What is wrong with a value, and which name would be right; None if nothing is."""
        problems = map(self._problem_of, [value] if self.joint is None else value.split(self.joint))
        return next((problem for problem in problems if problem is not None), None)

    def _problem_of(self, name: str) -> str | None:
        if name in (*self.also, *plugins.ours(self.group)):
            return None
        names = list(dict.fromkeys([*plugins.available(self.group), *self.also]))
        if name in names:
            return None
        *most, last = [f"'{known}'" for known in names]
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        guess = f"; did you mean {close[0]}?" if close else ""
        return f"should be one of {', '.join(most)} or {last}{guess}"
