"""Which files beside an ONNX file hold its weights: asked of its bytes, by tools that have no ONNX package too.

ONNX Runtime, ``onnx`` and TensorRT read such files when they load a model, so their content must be known as well.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from shared.errors import ModelLoadError
from shared.regular_files import open_regular

# Messages of onnx.proto, with the fields in which tensors can be: number of the field to the message in it.
_MESSAGES = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "entry": {},
}
_KEY, _VALUE = 1, 2
_LOCATION = b"location"
_DEEPEST = 100
# Wire types of protobuf.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _Field(NamedTuple):
    number: int
    start: int
    end: int


def external_files(path: Path) -> list[str]:
    """The files that an ONNX file names, as it names them, relative to its folder; none where it is whole.

    Raises:
        ModelLoadError: missing, truncated, or no ONNX file.
    """
    with open_regular(path, error=ModelLoadError) as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                locations = set(_locations(content, 0, len(content), "model", 0))
        except (ValueError, IndexError, OSError) as error:
            raise ModelLoadError("not a whole ONNX file", where=str(path), hint="copy or export it again") from error
    return sorted(location.decode("utf-8", "surrogateescape") for location in locations)


def _locations(content: mmap.mmap, start: int, end: int, message: str, depth: int) -> Iterator[bytes]:
    if depth > _DEEPEST:
        raise ValueError("nests too deeply")
    if message == "entry":
        texts = {field.number: content[field.start : field.end] for field in _fields(content, start, end)}
        if texts.get(_KEY) == _LOCATION:
            yield texts.get(_VALUE, b"")
        return
    inner = _MESSAGES[message]
    for field in _fields(content, start, end):
        if field.number in inner:
            yield from _locations(content, field.start, field.end, inner[field.number], depth + 1)


def _fields(content: mmap.mmap, start: int, end: int) -> Iterator[_Field]:
    """The fields of a message that have a length; numbers are passed over."""
    while start < end:
        tag, start = _varint(content, start)
        kind = tag & 7
        if kind == _VARINT:
            _, start = _varint(content, start)
        elif kind == _FIXED64:
            start += 8
        elif kind == _FIXED32:
            start += 4
        elif kind == _BYTES:
            size, start = _varint(content, start)
            yield _Field(tag >> 3, start, start + size)
            start += size
        else:
            raise ValueError("no field of protobuf")
        if start > end:
            raise ValueError("a field is longer than its message")


def _varint(content: mmap.mmap, start: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = content[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start
    raise ValueError("a number of more than 64 bits")
