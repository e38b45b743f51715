"""How points are loaded, as parameters of a model have it."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any

from pydantic import BeforeValidator

from shared.data import PointLoading


def _without_unknown_keys(points: Any) -> Any:
    # A plain dataclass ignores keys that it does not have.
    known = {field.name for field in fields(PointLoading)}
    if isinstance(points, dict) and not points.keys() <= known:
        raise ValueError(f"unknown key {sorted(points.keys() - known)[0]}")
    return points


LoadedPoints = Annotated[PointLoading, BeforeValidator(_without_unknown_keys)]
