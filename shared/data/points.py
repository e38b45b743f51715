"""Lidar point files: (N, F) float32 out of .bin, .pcd, .npz (Argoverse 2) and .npy.

Columns: x, y, z in meters, then intensity, then ring or whatever the format has. NaN points are kept as they are in the
file; callers drop and count them. A file without points gives (0, F).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from shared.arrays import Float32
from shared.data.pcd import read_pcd
from shared.data.types import PointFile
from shared.errors import InputError
from shared.npy import ARCHIVE, ARRAY, BROKEN_ARCHIVE, BROKEN_ARRAY, check_kind

_INTENSITY = 3
ARGOVERSE_COLUMNS = ("x", "y", "z", "intensity", "laser_number")


def read_points(file: PointFile) -> Float32:
    """The points of a file, presented as its ``PointFile`` says.

    Returns:
        (N, file.columns) float32, a new array that the caller may change.

    Raises:
        InputError: the file is missing or unreadable, does not hold a whole number of points, or has too few columns.
    """
    if not file.path.is_file():
        raise InputError(
            "no such point file", where=str(file.path), hint=f"check data.root ({file.root}) and data.data_prefix"
        )
    suffix = file.path.suffix.lower()
    if suffix not in _READERS:
        raise InputError(
            f"point files of kind '{suffix}' can't be read", where=str(file.path), hint=f"known: {', '.join(_READERS)}"
        )
    try:
        points: Float32 = _READERS[suffix](file.path, file.num_features)
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror or error})", where=str(file.path)) from error
    except MemoryError as error:
        raise InputError("has more points than fit into memory", where=str(file.path)) from error
    if file.intensity_scale != 1.0 and file.num_features > _INTENSITY:
        points[:, _INTENSITY] *= np.float32(file.intensity_scale)
    if file.columns > file.num_features:
        padding = np.zeros((len(points), file.columns - file.num_features), np.float32)
        points = np.concatenate([points, padding], axis=1)
    return points


def _read_bin(path: Path, num_features: int) -> Float32:
    """Little-endian float32, ``num_features`` per point, no header."""
    size = path.stat().st_size
    if size % (4 * num_features):
        raise InputError(
            f"has {size} bytes, which is not a whole number of points of {num_features} float32 "
            f"({4 * num_features} bytes each)",
            where=str(path),
            hint="the file is truncated, or num_features is wrong",
        )
    return np.fromfile(path, np.dtype("<f4")).astype(np.float32, copy=False).reshape(-1, num_features)


def _read_npz(path: Path, num_features: int) -> Float32:
    """Argoverse 2 sweep: xyz (N, 3) float16, intensity (N,) 0-255, laser_number (N,)."""
    try:
        with path.open("rb") as file:
            check_kind(file, ARCHIVE, ".npz")
            with np.load(file, allow_pickle=False) as arrays:
                columns = [arrays["xyz"], arrays["intensity"][:, None], arrays["laser_number"][:, None]]
                points = np.concatenate([column.astype(np.float32) for column in columns], axis=1)
    except (*BROKEN_ARRAY, *BROKEN_ARCHIVE) as error:
        raise InputError(
            f"can't be read as an Argoverse 2 sweep ({error})",
            where=str(path),
            hint="expected the arrays xyz (N, 3), intensity (N,), laser_number (N,)",
        ) from error
    return _first_columns(points, num_features, path)


def _read_npy(path: Path, num_features: int) -> Float32:
    """A plain (N, F) array of numbers."""
    try:
        with path.open("rb") as file:
            check_kind(file, (*ARRAY, *ARCHIVE), ".npy")
            array: Any = np.load(file, allow_pickle=False)
    except (*BROKEN_ARRAY, *BROKEN_ARCHIVE) as error:
        raise InputError(f"can't be read as a NumPy array ({error})", where=str(path)) from error
    if not isinstance(array, np.ndarray):
        raise InputError("is an archive of arrays, not an array", where=str(path), hint="its suffix would be .npz")
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise InputError(f"has shape {array.shape} of {array.dtype}, expected points (N, F)", where=str(path))
    return _first_columns(array.astype(np.float32), num_features, path)


def _first_columns(points: Float32, num_features: int, path: Path) -> Float32:
    if points.shape[1] < num_features:
        raise InputError(
            f"has {points.shape[1]} columns, expected {num_features}", where=str(path), hint="check data.num_features"
        )
    return np.ascontiguousarray(points[:, :num_features])


_READERS = {".bin": _read_bin, ".pcd": read_pcd, ".npz": _read_npz, ".npy": _read_npy}
POINT_SUFFIXES = tuple(_READERS)
