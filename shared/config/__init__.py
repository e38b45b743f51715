"""The deploy config: typed sections, YAML and AWML's Python files, overrides, and the reference generated from them.

Nothing here imports pydantic before a config is loaded, so that every tool's ``--help`` answers at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shared.config.load import from_resolved, load_config, part, resolved
    from shared.config.schema import DeployConfig

__all__ = ["DeployConfig", "from_resolved", "load_config", "part", "resolved"]

_HOMES = {
    "DeployConfig": "shared.config.schema",
    "from_resolved": "shared.config.load",
    "load_config": "shared.config.load",
    "part": "shared.config.load",
    "resolved": "shared.config.load",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
