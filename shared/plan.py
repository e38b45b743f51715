"""Reads the header of a plan (a serialized engine), which needs neither CUDA nor TensorRT.

Layout, as trtexec reads it: little-endian uint32 magic, uint32 version of the serialization, and in bytes 24 to 27
major, minor, patch and build of the TensorRT that wrote it, one byte each. Plans since 8.6 have it. Bytes 16 to 23 are
the length of the whole plan; that is not documented, but holds for every plan of 8.6.0 and of TensorRT for RTX 1.7.1
that was examined.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shared.errors import InputError

HEADER_BYTES = 64
_MAGIC: dict[bytes, Literal["tensorrt", "rtx"]] = {b"ftrt": "tensorrt", b"vtrt": "rtx"}


@dataclass(frozen=True)
class PlanHeader:
    """The start of a plan.

    Attributes:
        flavor: TensorRT, or TensorRT for RTX.
        version: major, minor, patch, build; the build number is truncated to eight bits.
        length: bytes of the whole plan, or None where the header does not say.
    """

    flavor: Literal["tensorrt", "rtx"]
    version: tuple[int, int, int, int]
    length: int | None = None

    @property
    def version_text(self) -> str:
        """Major, minor and patch, for example ``8.6.0``."""
        return ".".join(str(part) for part in self.version[:3])


def flavor_of(record: Mapping[str, Any]) -> Literal["tensorrt", "rtx"]:
    """Which TensorRT an engine was built with, by its record (``<engine>.json``, or the manifest's about it)."""
    # Records from before the release spell the key otherwise.
    built_with = record["tensorrt"]
    flavor: Literal["tensorrt", "rtx"] = built_with["flavor" if "flavor" in built_with else "flavour"]
    return flavor


def read_header(path: Path) -> PlanHeader:
    """Read the header of a plan.

    Raises:
        InputError: the file is missing, too short, not a plan, or a plan with something in front of it.
    """
    try:
        with path.open("rb") as file:
            start = file.read(HEADER_BYTES)
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})", where=str(path)) from error
    if len(start) < HEADER_BYTES:
        raise InputError(f"only {len(start)} bytes: a truncated engine", where=str(path), hint="build it again")
    flavor = _MAGIC.get(start[:4])
    if flavor is None:
        raise InputError(_explain(path, start), where=str(path))
    length = int.from_bytes(start[16:24], "little")
    return PlanHeader(flavor, (start[24], start[25], start[26], start[27]), length or None)


def numbers(version: str) -> tuple[int, ...]:
    """The parts of a version that are numbers: ``10.7.0.post1`` is (10, 7, 0)."""
    parts = []
    for part in version.split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)


def version_mismatch(built: str, installed: str, *, version_compatible: bool) -> str | None:
    """Why an engine of one TensorRT does not load with another; None where it does.

    From TensorRT's documentation: with the very version that built it, and version compatible ones also with newer
    versions of the same major (those of 10.x with 11.x too).

    Args:
        built: the version that built it.
        installed: the version that is to load it.
        version_compatible: whether it was built so.
    """
    before, now = numbers(built)[:3], numbers(installed)[:3]
    if before == now:
        return None
    if not version_compatible:
        return f"it was built with {built}, and {installed} is installed here"
    if now < before:
        return f"{installed} is older than {built}; version compatible engines load only with newer versions"
    if now[0] == before[0] or (before[0], now[0]) == (10, 11):
        return None
    return f"a version compatible engine of {before[0]}.x does not load with {now[0]}.x"


def _explain(path: Path, start: bytes) -> str:
    """What a file that is not a plan appears to be."""
    # Ultralytics and others put the length of a JSON text and the text itself in front of the plan.
    length = int.from_bytes(start[:4], "little")
    if start[4:5] == b"{" and 2 <= length < min(path.stat().st_size, 1 << 20):
        with path.open("rb") as file:
            text = file.read(4 + length)[4:]
        try:
            json.loads(text)
        except ValueError:
            pass
        else:
            return (
                f"JSON metadata of {length} bytes stands in front of the plan (Ultralytics does that); TensorRT "
                f"can't load it like this: tail -c +{length + 5} cuts it off"
            )
    if start[:1] == b"{":
        return "JSON stands in front of the plan, or this is not an engine at all"
    # Field 1 of ModelProto, ir_version, as protobuf writes it.
    if start[:1] == b"\x08":
        return "an ONNX file, not an engine"
    if start[:2] == b"PK":
        return "a zip archive (PyTorch file?), not an engine"
    return f"not a TensorRT engine (it starts with {start[:4]!r})"
