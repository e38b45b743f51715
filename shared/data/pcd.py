"""Point Cloud Library files (.pcd version 0.7): ascii, binary and binary_compressed.

Format: a text header (VERSION, FIELDS, SIZE, TYPE, COUNT, WIDTH, HEIGHT, VIEWPOINT, POINTS, DATA), then the points.
Binary: packed rows. Compressed: two uint32 (compressed and full size), then the fields one after the other, in LZF.

pypcd4 1.5.1 reads these files too, but trusts them: a binary file that lost its end gives fewer points without an
error, a padding field with COUNT 20000000 takes 63 s and 5.6 GiB to refuse, and ascii with tabs or two spaces between
numbers, a header without COUNT and version 0.6 are refused. So headers and rows are read here; LZF and the numbers of
ascii files are left to libraries.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.arrays import Float32
from shared.errors import InputError
from shared.lazy import lazy_import
from shared.regular_files import read_bytes

lzf = lazy_import("lzf")


# Our columns, and the names that lidar drivers and Autoware give them.
_COLUMN_NAMES = (("x",), ("y",), ("z",), ("intensity", "i", "reflectivity"), ("ring", "channel", "laser_number"))
_RING = 4
_NO_RING = -1.0  # what T4's .bin files have in that column

_TYPES = {"F": "f", "I": "i", "U": "u"}
_HEADER_LIMIT = 65536
# LZF's longest copy: 264 bytes of 3.
_LZF_RATIO = 88


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
        content = read_bytes(path)
        header, start = _parse_header(content)
        rows = _read_rows(content, header, start)
    except (KeyError, ValueError, IndexError, OverflowError, TypeError, struct.error) as error:
        raise InputError(f"can't be read as a point cloud ({error})", where=str(path)) from error
    points = np.empty((len(rows), num_features), np.float32)
    for column, names in enumerate(_COLUMN_NAMES[:num_features]):
        present = [name for name in names if name in (rows.dtype.names or ())]
        if present and rows[present[0]].ndim > 1:
            raise InputError(f"has several values in the field '{present[0]}' of a point", where=str(path))
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
    lines = [line for line in content.decode("ascii").splitlines() if line.strip()]
    if len(lines) < points:
        raise ValueError(f"{len(lines)} lines of points where the header promises {points}")
    if points == 0:
        return np.empty(0, dtype)
    values = np.loadtxt(lines[:points], np.float64, comments=None, ndmin=2)
    counts = [int(np.prod(dtype[name].shape, dtype=np.int64)) for name in dtype.names or ()]
    if values.shape[1] < sum(counts):
        raise ValueError(f"{values.shape[1]} numbers a line where the header promises {sum(counts)}")
    rows = np.empty(points, dtype)
    offset = 0
    for name, count in zip(dtype.names or (), counts, strict=True):
        with np.errstate(over="ignore", invalid="ignore"):  # what a type can't hold is not a point either
            rows[name] = values[:, offset : offset + count].reshape(rows[name].shape)
        offset += count
    return rows


def _read_compressed(content: bytes, dtype: np.dtype[Any], points: int) -> npt.NDArray[Any]:
    compressed_size, size = struct.unpack_from("<II", content)
    _require(len(content) - 8, compressed_size)
    _require(size, points * dtype.itemsize)
    plain = _decompress(content[8 : 8 + compressed_size], size)
    rows = np.empty(points, dtype)
    offset = 0
    for name in dtype.names or ():
        field = np.frombuffer(plain, dtype[name].base, rows[name].size, offset)
        rows[name] = field.reshape(rows[name].shape)
        offset += field.nbytes
    return rows


def _decompress(content: bytes, size: int) -> bytes:
    """Exactly ``size`` bytes; the memory that a file asks for is bounded by its own length.

    Raises:
        ValueError: the stream is broken or gives another number of bytes.
    """
    if size > _LZF_RATIO * len(content):
        raise ValueError(f"{len(content)} compressed bytes can't give {size}")
    plain = lzf.decompress(content, size) if size else b""
    if plain is None or len(plain) != size:
        raise ValueError(f"compressed points don't give {size} bytes")
    return bytes(plain)
