"""The double's plans: the header of a real one, the layers that are reported, and an ONNX file that is run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

HEADER_BYTES = 64
Profile = Mapping[str, Sequence[Sequence[int]]]


class Plan(NamedTuple):
    """What is in a plan.

    Attributes:
        onnx: the graph that the engine computes.
        profile: smallest, tuned-for and largest shape by dynamic input.
        layers: as the engine inspector reports them.
        version_compatible: whether code for the host is in it.
        inputs: type and layout of inputs that the engine does not take as the graph has them.
    """

    onnx: bytes
    profile: Profile
    layers: Sequence[Mapping[str, Any]] = ()
    version_compatible: bool = False
    inputs: Mapping[str, Sequence[str]] = {}


def write(plan: Plan, version: str = "8.6.0", magic: bytes = b"ftrt") -> bytes:
    """A plan as bytes."""
    numbers = bytes(int(part) for part in version.split("."))
    text = json.dumps(plan._asdict() | {"onnx": None}).encode()
    header = (magic + bytes(20) + numbers).ljust(HEADER_BYTES, b"\0")
    return header + len(text).to_bytes(4, "little") + text + plan.onnx


def read(data: bytes) -> Plan | None:
    """What is in a plan; None where it is none."""
    start = HEADER_BYTES + 4
    length = int.from_bytes(data[HEADER_BYTES:start], "little")
    if length == 0:
        return None
    return Plan(**json.loads(data[start : start + length]) | {"onnx": data[start + length :]})
