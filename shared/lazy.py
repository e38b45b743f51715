"""Lazy imports: heavy packages load when a command first touches them, so that `--help` answers at once."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from shared import provenance
from shared.errors import EnvironmentLacks


class _LazyModule(ModuleType):
    """Stands in for a module until its first attribute is read."""

    def __init__(self, name: str, install: str) -> None:
        super().__init__(name)
        self._install = install
        self._module: ModuleType | None = None

    def _load(self) -> ModuleType:
        if self._module is None:
            try:
                self._module = importlib.import_module(self.__name__)
            # OSError: a package that loads shared libraries by itself, as TensorRT 10 does, and finds one missing.
            except (ImportError, OSError) as error:
                image = provenance.image()
                raise EnvironmentLacks(
                    f"Python package '{self.__name__}' can't be imported ({error})",
                    hint=f"install it with: {self._install}"
                    if image is None
                    else f"it is not in this image, {image}; take the one of another tool or backend (docs/docker.md)",
                ) from error
        return self._module

    def __getattr__(self, attribute: str) -> Any:
        # Dunder look-ups come from introspection (inspect, doctest, copy), which must not trigger the import.
        # `__version__` is often the first attribute that is read.
        if attribute.startswith("__") and attribute != "__version__":
            raise AttributeError(attribute)
        return getattr(self._load(), attribute)


def lazy_import(name: str, install: str = "make setup") -> Any:
    """A stand-in for module ``name`` that imports it at the first attribute access.

    Raises:
        EnvironmentLacks: at first use, when the module can't be imported.
    """
    return _LazyModule(name, install)
