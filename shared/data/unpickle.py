"""Pickles that can only give data.

Info files of mmdet3d and AWML are pickles, and loading a pickle runs whatever it names. Here it may name plain
containers, dates, and NumPy's arrays, scalars and dtypes; any other class or function ends the load before it is
imported. NumPy's own restore functions trust the flags, fields and buffers of a pickled dtype, which is enough to
corrupt memory, so stand-ins take their place: numbers, strings, and arrays of them or of the objects allowed here.
"""

from __future__ import annotations

import collections
import datetime
import pickle
import re
import struct
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from shared.errors import InputError

# Booleans, integers, floats, complex, bytes and text of a fixed size, and Python objects.
_DTYPE_NAME = re.compile(r"b1|[iu][1248]|f[248]|c8|c16|[SU][0-9]{1,9}|O8?")
_BYTE_ORDERS = ("<", ">", "|", "=")


class _Dtype:
    """What a pickle says about a dtype, before it is trusted."""

    __slots__ = ("name", "order")

    def __init__(self, name: Any, *_align_and_copy: Any) -> None:
        if not isinstance(name, str) or not _DTYPE_NAME.fullmatch(name):
            raise pickle.UnpicklingError(f"dtype {name!r} is not allowed, only plain numbers and text")
        self.name = name
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        """``(version, byte order, subarray, names, fields, size, alignment, flags)``; the name has the size already."""
        _version, order, subarray, names, fields = state[:5]
        if order not in _BYTE_ORDERS or (subarray, names, fields) != (None, None, None):
            raise pickle.UnpicklingError("structured dtypes are not allowed, only plain numbers and text")
        self.order = order

    def resolve(self) -> np.dtype[Any]:
        dtype = np.dtype(self.name)
        return dtype if self.order == "|" else dtype.newbyteorder(cast(Any, self.order))


class _PickledArray(np.ndarray[Any, np.dtype[Any]]):
    """An array while it is restored: checks its state, then lets NumPy restore it."""

    def __setstate__(self, state: Any) -> None:
        """``(version, shape, dtype, column major, bytes or list)``; NumPy checks lengths against shape and dtype."""
        _version, shape, dtype, column_major, content = state
        dtype = _resolved(dtype)
        if not isinstance(content, list if dtype.hasobject else bytes):
            raise pickle.UnpicklingError(f"an array of {dtype} can't be restored from {type(content).__name__}")
        super().__setstate__((1, shape, dtype, column_major, content))


def _resolved(dtype: Any) -> np.dtype[Any]:
    if not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError(f"a dtype was expected, not {type(dtype).__name__}")
    return dtype.resolve()


# The stand-ins are instances without attributes, so that a pickle's BUILD instruction finds nothing to change in them.


class _Reconstruct:
    """An empty array, whose state follows. The shape and type in the pickle are placeholders."""

    __slots__ = ()

    def __call__(self, subtype: Any, _shape: Any, _typecode: Any) -> npt.NDArray[Any]:
        if subtype is not np.ndarray:
            raise pickle.UnpicklingError(f"an array of class {subtype!r} is not allowed")
        return np.empty(0, np.int8).view(_PickledArray)


class _FromBuffer:
    """An array from its bytes (pickle protocol 5)."""

    __slots__ = ()

    def __call__(self, content: Any, dtype: Any, shape: Any, order: Any) -> npt.NDArray[Any]:
        return np.frombuffer(content, _resolved(dtype)).reshape(shape, order=order).copy(order=order)


class _Scalar:
    """A NumPy scalar from its bytes."""

    __slots__ = ()

    def __call__(self, dtype: Any, content: Any = b"") -> Any:
        resolved = _resolved(dtype)
        if resolved.hasobject or not isinstance(content, bytes) or len(content) != resolved.itemsize:
            raise pickle.UnpicklingError(f"a scalar of {resolved} can't be restored from {content!r:.40}")
        return np.ndarray((), resolved, content)[()] if content else resolved.type()


class _Encode:
    """Bytes, as pickle protocols 0 to 2 write them: text in latin1."""

    __slots__ = ()

    def __call__(self, text: Any, encoding: Any) -> bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError(f"encoding {encoding!r} is not allowed")
        return text.encode("latin1")


_NUMPY_CORES = ("numpy.core", "numpy._core")  # before and since NumPy 2

_ALLOWED: dict[tuple[str, str], Any] = {
    **{(module, kind.__name__): kind for module in ("builtins", "__builtin__") for kind in (
        bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset
    )},
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): collections.defaultdict,
    **{("datetime", kind.__name__): kind for kind in (
        datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone
    )},
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _Dtype,
    **{(f"{core}.multiarray", "_reconstruct"): _Reconstruct() for core in _NUMPY_CORES},
    **{(f"{core}.multiarray", "scalar"): _Scalar() for core in _NUMPY_CORES},
    **{(f"{core}.numeric", "_frombuffer"): _FromBuffer() for core in _NUMPY_CORES},
    ("_codecs", "encode"): _Encode(),
}  # fmt: skip


class _DataUnpickler(pickle.Unpickler):
    def __init__(self, file: Any, where: str) -> None:
        super().__init__(file)
        self._where = where

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise InputError(
                f"refused: this pickle wants '{module}.{name}', and info files may contain only plain data",
                where=self._where,
                hint="nothing of it was run; do not load the file with other tools unless you know who wrote it",
            )
        return _ALLOWED[module, name]


def load_pickle(path: Path) -> Any:
    """The data in a pickle file.

    Arrays come back as ``numpy.ndarray`` (or a subclass of it that behaves the same).

    Raises:
        InputError: the file is missing, is no pickle, is truncated, or names anything but plain data; the message has
            the class it names.
    """
    where = str(path)
    try:
        with path.open("rb") as file:
            return _DataUnpickler(file, where).load()
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})", where=where) from error
    except MemoryError as error:
        raise InputError("needs more memory than there is", where=where) from error
    except (
        # What the unpickler and the constructors it calls raise on bytes that are no pickle, or a broken one.
        *(pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError, OverflowError),
        *(RecursionError, TypeError, ValueError, struct.error),
    ) as error:
        raise InputError(
            f"can't be read as a pickle ({error})", where=where, hint="the file is truncated or of another kind"
        ) from error
