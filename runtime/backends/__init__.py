"""Backends: what runs the components of a model. Each is a module here, with the same names in the same order.

A module ``runtime/backends/<name>.py`` is the backend ``<name>``; there is no list to add it to, and another package
adds its own by an entry point of the group ``awml_deploy.backends``. It has what `BackendModule` says, and its sessions
what `Session` says.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from runtime.devices import Device
from shared import plugins
from shared.errors import ModelLoadError, UsageError
from shared.spec import ComponentSpec, ModelSpec
from shared.workspace import Workspace

Tensors = Mapping[str, npt.NDArray[np.generic]]


class Session(Protocol):
    """The components of a model, loaded on a device."""

    @property
    def settings(self) -> dict[str, Any]:
        """What is in force: threads, providers and the like, for the record."""

    def run(self, component: str, inputs: Tensors) -> dict[str, npt.NDArray[Any]]:
        """Run one component.

        Args:
            component: its name in the model spec.
            inputs: C-contiguous arrays by input name; not written to.

        Returns:
            Arrays by output name, valid for as long as the caller holds them.

        Raises:
            InferenceError: the backend failed.
        """


class Compilable(ABC):
    """A session whose components can be compiled for the machine, at the price of a slow first request."""

    @abstractmethod
    def compile(self) -> None:
        """Compile every component when it first runs."""


class BackendModule(Protocol):
    """What the module of a backend has."""

    PACKAGES: tuple[str, ...]
    """Packages whose versions the results depend on."""

    def artifacts(self, workspace: Workspace, spec: ModelSpec, target: str | None) -> dict[str, str]:
        """The artifact of the workspace that each component is loaded from, by name of the component.

        Args:
            workspace: where they are.
            spec: the model.
            target: which of several sets, where the backend has such; None for the one that fits.

        Raises:
            UsageError: a target, and the backend has none.
            InputError: the workspace has none for this backend; says what makes it.
        """

    def load(self, files: Mapping[str, Path], spec: ModelSpec, device: Device, threads: int | None) -> Session:
        """Load the components.

        Args:
            files: a file per component, checked against the manifest.
            spec: names of inputs and outputs.
            device: where to run; nothing else will do.
            threads: threads within an operation on the CPU; None leaves the choice to the backend.

        Raises:
            EnvironmentLacks: the package or the device is missing.
            ModelLoadError: a file can't be loaded, or is not the component of the spec.
        """


Shapes = Mapping[str, Sequence[int | str | None]]


def require_interface(component: ComponentSpec, inputs: Shapes, outputs: Shapes, *, where: str, hint: str) -> None:
    """See that what was loaded is the component of a spec.

    Args:
        component: of the spec.
        inputs, outputs: shapes of what was loaded, by name; the size of a dynamic axis is its name or None.
        where: the file.
        hint: what makes it anew.

    Raises:
        ModelLoadError: other names or shapes than the spec's.
    """
    for kind, expected, actual in (("inputs", component.inputs, inputs), ("outputs", component.outputs, outputs)):
        wanted = [tensor.name for tensor in expected]
        if sorted(actual) != sorted(wanted):
            raise ModelLoadError(f"has the {kind} {list(actual)}, the model spec says {wanted}", where=where, hint=hint)
        for tensor in expected:
            shape = list(actual[tensor.name])
            if not tensor.accepts(shape):
                raise ModelLoadError(
                    f"has '{tensor.name}' of shape {shape}, the model spec says {tensor.shape}", where=where, hint=hint
                )


def artifact_kind(module: BackendModule) -> str | None:
    """Kind of the artifacts that a backend loads, its ``KIND``; None: that which the manifest says.

    Those of `shared.trust.CODE` are loaded only where they were made, or are trusted: a backend whose files run code
    says so, since a manifest can say what it likes.
    """
    return getattr(module, "KIND", None)


def no_target(target: str | None, backend_name: str) -> None:
    """For backends that have one set of artifacts.

    Raises:
        UsageError: a target was asked for.
    """
    if target is not None:
        raise UsageError(f"--target {target}", hint=f"{backend_name} has no targets; --backend tensorrt has")


def available_backends() -> list[str]:
    """Names of all backends."""
    return plugins.available(plugins.BACKENDS)


def backend(name: str) -> BackendModule:
    """The backend called ``name``.

    Raises:
        UsageError: there is none.
        EnvironmentLacks: another package adds it, and it can't be imported.
    """
    module = plugins.find(plugins.BACKENDS, name)
    if module is None:
        raise UsageError(f"no backend is called '{name}'", hint=f"there are: {', '.join(available_backends())}")
    return cast(BackendModule, module)
