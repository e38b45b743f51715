"""What is found by name: a module of a package of ours, or what another package adds by an entry point."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from typing import Any

from shared.errors import EnvironmentLacks


def available(package: str, group: str) -> list[str]:
    """Names of all that can be found.

    Args:
        package: whose modules are ours.
        group: of entry points.
    """
    return sorted({*_modules(package), *(point.name for point in importlib.metadata.entry_points(group=group))})


def find(package: str, group: str, name: str, attribute: str | None = None) -> Any | None:
    """What is called ``name``; None where there is nothing of that name.

    Args:
        package: whose modules are ours.
        group: of entry points.
        name: of a module, or of an entry point.
        attribute: of our modules that is wanted; None: the module itself.

    Raises:
        EnvironmentLacks: what another package adds can't be imported.
    """
    if name in _modules(package):
        module = importlib.import_module(f"{package}.{name}")
        return module if attribute is None else vars(module)[attribute]
    for point in importlib.metadata.entry_points(group=group):
        if point.name == name:
            try:
                return point.load()
            except ImportError as error:
                raise EnvironmentLacks(f"'{name}' of {point.value} can't be imported ({error})") from error
    return None


def _modules(package: str) -> set[str]:
    return {module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__)}
