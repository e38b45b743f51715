"""Stand-ins for AWML's module types, so that its configs and checkpoints load where AWML itself is not installed.

AWML derives its types from mmdet3d's and mmdet's. What matters here is that a config which names them builds, that the
weights have AWML's names, and that inference computes the same; training-only parts are left out. A model's ``awml.py``
has ``REGISTRATIONS``: package of AWML, as a config imports it (``custom_imports``), to a function that registers our
types with the framework and returns their names; and ``DEPLOYED``, what the model is called in AWML's deploy configs
(`shared.config.awml_models`).
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, cast

from shared import plugins
from shared.config.awml_models import Deployed

# Top-level packages of AWML. A config may import any module of them; for building a model only those that a model's
# ``awml.py`` names matter.
AWML_PACKAGES = ("projects", "autoware_ml")
# Where AWML's container has the repository; some configs name their bases so.
_CONTAINER_ROOT = Path("/workspace")


class StandIns(Protocol):
    """What a model's ``awml.py`` provides."""

    DEPLOYED: Deployed
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
    """That of the module itself, else of the innermost package around it."""
    found: dict[str, Callable[[], list[str]]] = {}
    for model in plugins.with_part(plugins.EXPORTER_MODELS, "awml"):
        stand_ins = cast(StandIns, plugins.part(plugins.EXPORTER_MODELS, model, "awml"))
        found |= {
            package: register
            for package, register in stand_ins.REGISTRATIONS.items()
            if module == package or module.startswith(package + ".")
        }
    return found[max(found, key=len)] if found else None


def register_types(registry: Any, types: Mapping[str, Any]) -> list[str]:
    """Register types by name in a framework's registry, in place of what it has; returns the names."""
    for name, module in types.items():
        registry.register_module(name=name, module=module, force=True)
    return list(types)


def in_repository(base: Path, config: Path) -> Path | None:
    """A base that is named by its place in AWML's container, in the repository that the config lies in.

    Args:
        base: ``/workspace/autoware_ml/configs/…``.
        config: the file that names it.

    Returns:
        The file; None where the name is of another kind, or the file is not there.
    """
    if not base.is_relative_to(_CONTAINER_ROOT) or base.exists():
        return None
    relative = base.relative_to(_CONTAINER_ROOT)
    return next((folder / relative for folder in config.resolve().parents if (folder / relative).is_file()), None)


class _EmptyModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules of AWML that nothing else finds, empty."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,  # noqa: ARG002  import's own arguments
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        """An empty package for a name of AWML's."""
        if name.partition(".")[0] not in AWML_PACKAGES:
            return None
        self.names.append(name)
        return importlib.machinery.ModuleSpec(name, loader=self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """Leave it to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Leave it empty."""


@contextlib.contextmanager
def importable() -> Iterator[list[str]]:
    """While the block runs, an ``import`` of AWML's modules by a config succeeds though AWML is not installed.

    A config imports a module for what it registers, as ``custom_imports`` does; nothing is in those found here.

    Yields:
        Names of the modules that were missing.
    """
    finder = _EmptyModules()
    sys.meta_path.append(finder)
    try:
        yield finder.names
    finally:
        sys.meta_path.remove(finder)
        for name in finder.names:
            sys.modules.pop(name, None)
