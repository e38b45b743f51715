"""Paths named by data files, which must stay inside the data folder, and the sort order of files in it."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from shared.errors import InputError


def data_path(root: Path, name: str, *, where: str, allow_absolute: bool = False) -> Path:
    """The file that an info file or table calls ``name``, relative to ``root``.

    Symbolic links inside the data folder are followed: data sets are often stitched together with them.

    Raises:
        InputError: ``name`` is empty, contains NUL or ``..``, or is absolute while ``allow_absolute`` is off.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise InputError(f"{name!r} is not a file name", where=where)
    pure = PurePosixPath(name)
    if ".." in pure.parts:
        raise InputError(f"path '{name}' leaves its folder", where=where, hint="'..' is not allowed here")
    if pure.is_absolute() and not allow_absolute:
        raise InputError(
            f"path '{name}' is absolute",
            where=where,
            hint="paths are relative to data.root; set data.allow_absolute_paths if you trust the file",
        )
    return root / name


def by_number(file: Path) -> list[tuple[int, str]]:
    """Sort key of files: digit runs in their names by value (2 before 10), the rest by text."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", file.name)]
