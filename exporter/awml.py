"""Stand-ins for AWML's module types, so that its configs and checkpoints load where AWML itself is not installed.

AWML derives its types from mmdet3d's and mmdet's. What matters here is that a config which names them builds, that the
weights have AWML's names, and that inference computes the same; training-only parts are left out. A model's ``awml.py``
has ``REGISTRATIONS``: package of AWML, as a config imports it (``custom_imports``), to a function that registers our
types with the framework and returns their names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from shared import plugins

# Top-level packages of AWML. A config may import any module of them; for building a model only those that a model's
# ``awml.py`` names matter.
AWML_PACKAGES = ("projects", "autoware_ml")


class StandIns(Protocol):
    """What a model's ``awml.py`` provides."""

    REGISTRATIONS: Mapping[str, Callable[[], list[str]]]


def stand_in_for(module: str) -> list[str]:
    """Register our own types for a module of AWML that can't be imported.

    Args:
        module: dotted name, as in ``custom_imports``.

    Returns:
        Names of the registered types; empty when the module holds nothing that a model is built of.
    """
    register = _registration(module)
    return register() if register else []


def is_stood_in_for(module: str) -> bool:
    """Whether own types stand in for a module of AWML."""
    return _registration(module) is not None


def _registration(module: str) -> Callable[[], list[str]] | None:
    for model in plugins.with_part(plugins.EXPORTER_MODELS, "awml"):
        stand_ins = cast(StandIns, plugins.part(plugins.EXPORTER_MODELS, model, "awml"))
        for package, register in stand_ins.REGISTRATIONS.items():
            if module == package or module.startswith(package + "."):
                return register
    return None


def register_types(registry: Any, types: Mapping[str, Any]) -> list[str]:
    """Register types by name in a framework's registry, in place of what it has; returns the names."""
    for name, module in types.items():
        registry.register_module(name=name, module=module, force=True)
    return list(types)
