"""Point Cloud Library files (.pcd version 0.7): ascii, binary and binary_compressed.

Format: a text header (VERSION, FIELDS, SIZE, TYPE, COUNT, WIDTH, HEIGHT, VIEWPOINT, POINTS, DATA), then the points.
Binary: packed rows. Compressed: two uint32 (compressed and full size), then the fields one after the other, in LZF.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.errors import InputError

Float32 = npt.NDArray[np.float32]

# Our columns, and the names that lidar drivers and Autoware give them.
_COLUMN_NAMES = (("x",), ("y",), ("z",), ("intensity", "i", "reflectivity"), ("ring", "channel", "laser_number"))
_RING = 4
_NO_RING = -1.0  # what T4's .bin files have in that column

_TYPES = {"F": "f", "I": "i", "U": "u"}
_HEADER_LIMIT = 65536


def read_pcd(path: Path, num_features: int) -> Float32:
    """The first ``num_features`` of x, y, z, intensity, ring.

    Returns:
        (N, num_features) float32. A file without a ring field gets -1 there, as in T4's .bin files.

    Raises:
        InputError: the header is malformed, a field is missing, or there are fewer bytes than points.
    """
    if not 3 <= num_features <= len(_COLUMN_NAMES):
        raise InputError(
            f"a .pcd gives 3 to {len(_COLUMN_NAMES)} columns, not {num_features}",
            where=str(path),
            hint="check data.num_features",
        )
    try:
        content = path.read_bytes()
        header, start = _parse_header(content)
        rows = _read_rows(content, header, start)
    except (KeyError, ValueError, IndexError, OverflowError, TypeError, struct.error) as error:
        raise InputError(f"can't be read as a point cloud ({error})", where=str(path)) from error
    points = np.empty((len(rows), num_features), np.float32)
    for column, names in enumerate(_COLUMN_NAMES[:num_features]):
        present = [name for name in names if name in (rows.dtype.names or ())]
        if present:
            points[:, column] = rows[present[0]]
        elif column == _RING:
            points[:, column] = _NO_RING
        else:
            raise InputError(
                f"has no field '{names[0]}', only {', '.join(rows.dtype.names or ())}",
                where=str(path),
                hint="check data.num_features",
            )
    return points


def _parse_header(content: bytes) -> tuple[dict[str, list[str]], int]:
    header: dict[str, list[str]] = {}
    start = 0
    while "DATA" not in header:
        end = content.find(b"\n", start, _HEADER_LIMIT)
        if end < 0:
            raise ValueError("no DATA line")
        words = content[start:end].decode("ascii").split()
        start = end + 1
        if words and not words[0].startswith("#"):
            header[words[0]] = words[1:]
    return header, start


def _row_dtype(header: dict[str, list[str]]) -> np.dtype[Any]:
    """Packed row; padding fields, which PCL calls '_', get names of their own."""
    counts = [int(count) for count in header.get("COUNT", ["1"] * len(header["FIELDS"]))]
    fields: list[tuple[Any, ...]] = []
    for position, (name, size, kind, count) in enumerate(
        zip(header["FIELDS"], header["SIZE"], header["TYPE"], counts, strict=True)
    ):
        if count < 1:
            raise ValueError(f"field {name} has COUNT {count}")
        unique = f"_{position}" if name == "_" else name
        kind_code = f"<{_TYPES[kind]}{int(size)}"
        fields.append((unique, kind_code) if count == 1 else (unique, kind_code, (count,)))
    return np.dtype(fields)


def _read_rows(content: bytes, header: dict[str, list[str]], start: int) -> npt.NDArray[Any]:
    dtype = _row_dtype(header)
    points = int(header["POINTS"][0]) if "POINTS" in header else int(header["WIDTH"][0]) * int(header["HEIGHT"][0])
    if points < 0:
        raise ValueError(f"POINTS {points}")
    kind = header["DATA"][0]
    if kind == "ascii":
        return _read_ascii(content[start:], dtype, points)
    if kind == "binary":
        _require(len(content) - start, points * dtype.itemsize)
        return np.frombuffer(content, dtype, points, start)
    if kind == "binary_compressed":
        return _read_compressed(content[start:], dtype, points)
    raise ValueError(f"DATA {kind}")


def _require(available: int, needed: int) -> None:
    if available < needed:
        raise ValueError(f"{available} bytes of points where the header promises {needed}")


def _read_ascii(content: bytes, dtype: np.dtype[Any], points: int) -> npt.NDArray[Any]:
    lines = [line.split() for line in content.decode("ascii").splitlines() if line.strip()]
    if len(lines) < points:
        raise ValueError(f"{len(lines)} lines of points where the header promises {points}")
    rows = np.empty(points, dtype)
    offset = 0
    for name in dtype.names or ():
        count = int(np.prod(dtype[name].shape, dtype=np.int64))
        values = np.array([[float(word) for word in line[offset : offset + count]] for line in lines[:points]])
        rows[name] = values.reshape(rows[name].shape)
        offset += count
    return rows


def _read_compressed(content: bytes, dtype: np.dtype[Any], points: int) -> npt.NDArray[Any]:
    compressed_size, size = struct.unpack_from("<II", content)
    _require(len(content) - 8, compressed_size)
    _require(size, points * dtype.itemsize)
    plain = decompress_lzf(content[8 : 8 + compressed_size], size)
    rows = np.empty(points, dtype)
    offset = 0
    for name in dtype.names or ():
        field = np.frombuffer(plain, dtype[name].base, rows[name].size, offset)
        rows[name] = field.reshape(rows[name].shape)
        offset += field.nbytes
    return rows


def decompress_lzf(content: bytes, size: int) -> bytes:
    """LZF: a control byte below 32 starts that many plus one literal bytes; any other a copy of earlier output.

    Args:
        content: compressed bytes.
        size: bytes that must come out.

    Raises:
        ValueError: the stream is broken or gives another number of bytes.
    """
    out = bytearray()
    position, end = 0, len(content)
    while position < end:
        control = content[position]
        position += 1
        if control < 32:
            if position + control + 1 > end:
                raise ValueError("compressed points end early")
            out += content[position : position + control + 1]
            position += control + 1
        else:
            length = control >> 5
            if length == 7:
                length += content[position]
                position += 1
            back = ((control & 31) << 8) + content[position] + 1
            position += 1
            source, length = len(out) - back, length + 2
            if source < 0:
                raise ValueError("compressed points refer to bytes before their start")
            piece = out[source : source + length]
            # A copy may overlap what it writes: then the piece repeats.
            out += (piece * (length // len(piece) + 1))[:length]
        if len(out) > size:
            break
    if len(out) != size:
        raise ValueError(f"compressed points give {len(out)} bytes, expected {size}")
    return bytes(out)
