"""The header of a .npy file, read before any memory is taken for its array."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from typing import IO, Any, NamedTuple

import numpy as np

#: What NumPy raises for a .npy file that is none; of headers it makes Python's tokens first.
BROKEN_ARRAY = (ValueError, EOFError, SyntaxError, TypeError, tokenize.TokenError)
#: And for an .npz archive of such files.
BROKEN_ARCHIVE = (KeyError, IndexError, RuntimeError, zipfile.BadZipFile, zlib.error)

#: What an array begins with, and an archive, which may hold nothing.
ARRAY, ARCHIVE = (np.lib.format.MAGIC_PREFIX,), (b"PK\x03\x04", b"PK\x05\x06")


def check_kind(file: IO[bytes], beginnings: tuple[bytes, ...], suffix: str) -> None:
    """Check how a file begins. What begins otherwise, NumPy takes for a pickle, which it says how to load unsafely.

    Raises:
        ValueError: it is no file of this suffix.
    """
    begins = file.read(max(map(len, beginnings))).startswith(beginnings)
    file.seek(0)
    if not begins:
        raise ValueError(f"it is no {suffix} file")


class NpyHeader(NamedTuple):
    """What a .npy file says it holds.

    Attributes:
        dtype: of the elements.
        shape: of the array.
        fortran_order: the first axis runs fastest.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool

    @property
    def nbytes(self) -> int:
        """Bytes of the array, which follow the header."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: IO[bytes]) -> NpyHeader:
    """The header at the file's position, which is at the array's first byte afterwards.

    Raises:
        ValueError: no such header, one of another version, or of an array of objects or of a negative size.
    """
    try:
        return _read_header(file)
    except BROKEN_ARRAY as error:
        raise ValueError(f"its header can't be read ({error})") from error


def _read_header(file: IO[bytes]) -> NpyHeader:
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"it is of version {version} of .npy")
    shape, fortran_order, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError("it is an array of objects")
    if min(shape, default=0) < 0:
        raise ValueError(f"it has the shape {shape}")
    return NpyHeader(dtype, shape, fortran_order)
