"""Devices by name: ``cpu``, ``cuda`` (the first one), ``cuda:N``, and the aliases of the deploy config."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from shared.errors import UsageError


@dataclass(frozen=True)
class Device:
    """Where a backend runs.

    Attributes:
        kind: ``cpu`` or ``cuda``.
        index: number of the GPU; 0 for the CPU.
    """

    kind: str
    index: int = 0

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"

    @property
    def is_cpu(self) -> bool:
        """Whether it is the host itself."""
        return self.kind == "cpu"


def parse_device(text: str, aliases: Mapping[str, str] | None = None) -> Device:
    """The device called ``text``.

    Args:
        text: ``cpu``, ``cuda``, ``cuda:N`` or an alias.
        aliases: alias to device, of the deploy config.

    Raises:
        UsageError: no such name.
    """
    name = (aliases or {}).get(text, text)
    match = re.fullmatch(r"(cpu)|cuda(?::(\d+))?", name)
    if match is None:
        known = ", ".join(dict.fromkeys(["cpu", "cuda", "cuda:N", *sorted(aliases or {})]))
        raise UsageError(f"no device is called '{text}'", hint=f"choose one of: {known}")
    return Device("cpu") if match[1] else Device("cuda", int(match[2] or 0))
