"""The only module that knows that TensorRT versions differ.

Names are probed, never derived from a version number: `has` asks the installed package. The table says where each
optional name is to be found, for messages and for the contract test, which checks it against the real bindings of
8.6.0 to 11.4 and TensorRT for RTX. Code elsewhere uses only names that every version has. Version numbers are compared
for known bugs alone.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal

from shared.errors import EnvironmentLacks

Flavour = Literal["tensorrt", "rtx"]

MODULES: dict[Flavour, str] = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
INSTALL: dict[Flavour, str] = {
    "tensorrt": "pip install the tensorrt wheel that fits the driver, or use the trt_builder image",
    "rtx": "make setup-rtx",
}


@dataclass(frozen=True)
class Known:
    """A TensorRT release that must not be used, or only with care.

    Attributes:
        reason: what it does wrong, with the public thread.
        refuse: whether the builder stops, or warns and goes on.
    """

    reason: str
    refuse: bool


KNOWN_BAD: dict[str, Known] = {
    "10.2.0": Known("builds wrong engines for common detectors (ultralytics issue 24367)", refuse=True),
    "10.3.0": Known("gave wrong outputs that 10.8 gives right (NVIDIA/TensorRT issue 4419)", refuse=False),
}


@dataclass(frozen=True)
class TensorRT:
    """An installed TensorRT.

    Attributes:
        flavour: ``tensorrt``, or ``rtx`` for TensorRT for RTX.
        trt: the imported module.
        version: its full version, for example ``8.6.0`` or ``1.7.1.116``.
    """

    flavour: Flavour
    trt: Any
    version: str

    @property
    def title(self) -> str:
        """Name and version, for messages."""
        return f"{'TensorRT for RTX' if self.flavour == 'rtx' else 'TensorRT'} {self.version}"


def load(flavour: Flavour) -> TensorRT:
    """Import TensorRT.

    Raises:
        EnvironmentLacks: not installed, its libraries don't load, or a release that is known to be broken.
    """
    name = MODULES[flavour]
    try:
        trt = importlib.import_module(name)
    except (ImportError, OSError) as error:
        # OSError: the wheel is there, a shared library that it loads is not.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EnvironmentLacks(
            f"no TensorRT: Python package '{name}' can't be imported ({reason})",
            hint=f"to install it: {INSTALL[flavour]}",
        ) from error
    installed = TensorRT(flavour, trt, str(trt.__version__))
    known = known_bad(installed)
    if known is not None and known.refuse:
        raise EnvironmentLacks(f"{installed.title} {known.reason}", hint="install another version")
    return installed


def known_bad(installed: TensorRT) -> Known | None:
    """What is known to be wrong with this release, if anything."""
    if installed.flavour == "rtx":
        return None
    return KNOWN_BAD.get(".".join(installed.version.split(".")[:3]))
