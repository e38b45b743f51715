"""Arrays by type, and named arrays in .npz files, written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from shared.errors import InputError
from shared.files import atomic_path
from shared.npy import ARCHIVE, BROKEN_ARCHIVE, BROKEN_ARRAY, check_kind
from shared.regular_files import open_regular
from shared.work_path import WorkPath

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]
Arrays = dict[str, npt.NDArray[Any]]


def write_arrays(path: Path | WorkPath, arrays: Mapping[str, npt.NDArray[Any]], *, compressed: bool = False) -> None:
    """Write a file.

    Raises:
        EnvironmentLacks: the disk is full or read-only.
    """
    write = np.savez_compressed if compressed else np.savez
    with atomic_path(path) as unfinished, unfinished.open("xb") as file:
        write(file, **cast("dict[str, Any]", dict(arrays)))


def read_arrays(path: Path) -> Arrays:
    """Read a file.

    Raises:
        InputError: the file is missing, or is not a .npz of plain arrays.
    """
    try:
        with open_regular(path) as file:
            check_kind(file, ARCHIVE, ".npz")
            with np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
    except (OSError, *BROKEN_ARRAY, *BROKEN_ARCHIVE) as error:
        raise InputError(f"can't be read as arrays ({error})", where=str(path)) from error
