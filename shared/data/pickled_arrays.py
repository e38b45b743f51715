"""NumPy's arrays, scalars and dtypes out of a pickle, checked before NumPy sees them.

NumPy's own restore functions take a dtype's flags and fields, an array's shape and the length of its list as they come,
which is enough to corrupt memory or to read what is not there.
"""

from __future__ import annotations

import math
import pickle
import re
from typing import Any, cast

import numpy as np
import numpy.typing as npt

# Booleans, integers, floats, complex, bytes and text of a fixed size, and Python objects.
_DTYPE_NAME = re.compile(r"b1|[iu][1248]|f[248]|c8|c16|[SU][0-9]{1,9}|O8?")
_BYTE_ORDERS = ("<", ">", "|", "=")
_MOST_AXES = 32
_MOST_ELEMENTS = 2**48
_LAST_CODE_POINT = 0x10FFFF


class Dtype:
    """What a pickle says about a dtype, before it is trusted."""

    __slots__ = ("name", "order")

    def __init__(self, name: str) -> None:
        self.name = name
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        """``(version, byte order, subarray, names, fields, size, alignment, flags)``; the name has the size already."""
        _version, order, subarray, names, fields = state[:5]
        if order not in _BYTE_ORDERS or (subarray, names, fields) != (None, None, None):
            raise pickle.UnpicklingError("structured dtypes are not allowed, only plain numbers and text")
        self.order = order

    def resolve(self) -> np.dtype[Any]:
        """The dtype of NumPy."""
        dtype = np.dtype(self.name)
        return dtype if self.order == "|" else dtype.newbyteorder(cast(Any, self.order))


def dtype(name: Any, *_align_and_copy: Any) -> Dtype:
    """For ``numpy.dtype``."""
    if not isinstance(name, str) or not _DTYPE_NAME.fullmatch(name):
        raise pickle.UnpicklingError(f"dtype {name!r:.40} is not allowed, only plain numbers and text")
    return Dtype(name)


class Array(np.ndarray[Any, np.dtype[Any]]):
    """An array out of a pickle."""

    __slots__ = ()


class LoadedArray(Array):
    """An array that has its content, while the rest of the pickle is loaded: nothing changes it."""

    __slots__ = ()

    def __setstate__(self, _state: Any) -> None:
        raise pickle.UnpicklingError("an array is restored a second time")

    def __setitem__(self, _index: Any, _value: Any) -> None:
        raise pickle.UnpicklingError("an array is changed after it was restored")


class EmptyArray(LoadedArray):
    """An array whose content is still to come."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        """``(version, shape, dtype, column major, bytes or list)``, checked, then restored by NumPy."""
        _version, shape, pickled, column_major, content = state
        dtype = _resolved(pickled)
        _check_content(content, dtype, shape)
        become(self, LoadedArray)
        super(LoadedArray, self).__setstate__(cast(Any, (1, shape, dtype, bool(column_major), content)))


def become(array: Array, kind: type[Array]) -> None:
    """Make ``array`` one of ``kind``, where it is: other values of the pickle refer to it."""
    array.__class__ = kind


def _check_content(content: Any, dtype: np.dtype[Any], shape: Any) -> None:
    count = _elements(shape)
    if not isinstance(content, list if dtype.hasobject else bytes):
        raise pickle.UnpicklingError(f"an array of {dtype} can't be restored from {type(content).__name__}")
    if len(content) != (count if dtype.hasobject else count * dtype.itemsize) or (count and not dtype.itemsize):
        raise pickle.UnpicklingError(f"an array of {dtype} and shape {shape} can't have {len(content)} values")
    # Arrays of arrays of arrays would be freed without a limit on the stack.
    if dtype.hasobject and any(isinstance(value, np.ndarray) and _holds_objects(value) for value in content):
        raise pickle.UnpicklingError("an array of arrays of objects is not allowed")
    if dtype.kind == "U" and count:
        # Text is stored as code points of 32 bits, and NumPy takes any number for one.
        points = np.frombuffer(cast(bytes, content), np.dtype("u4").newbyteorder(cast(Any, dtype.byteorder)))
        if points.max() > _LAST_CODE_POINT:
            raise pickle.UnpicklingError("an array of text has code points that do not exist")


def _holds_objects(array: npt.NDArray[Any]) -> bool:
    return isinstance(array, EmptyArray) or array.dtype.hasobject


def _elements(shape: Any) -> int:
    """How many elements an array of ``shape`` has."""
    are_sizes = isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)
    # NumPy multiplies the other axes of an empty array too.
    if not are_sizes or len(shape) > _MOST_AXES or math.prod(filter(None, shape)) > _MOST_ELEMENTS:
        raise pickle.UnpicklingError(f"{shape!r:.80} is not the shape of an array")
    return math.prod(shape)


def _resolved(pickled: Any) -> np.dtype[Any]:
    if not isinstance(pickled, Dtype):
        raise pickle.UnpicklingError(f"a dtype was expected, not {type(pickled).__name__}")
    return pickled.resolve()


def reconstruct(_subtype: Any, _shape: Any, _typecode: Any) -> EmptyArray:
    """For ``numpy._core.multiarray._reconstruct``: an array whose state follows. The arguments are placeholders."""
    return np.empty(0, np.int8).view(EmptyArray)


def from_buffer(content: Any, pickled: Any, shape: Any, order: Any) -> LoadedArray:
    """For ``numpy._core.numeric._frombuffer``: an array from its bytes (pickle protocol 5)."""
    dtype = _resolved(pickled)
    if isinstance(content, bytearray):
        content = bytes(content)
    _check_content(content, dtype, shape)
    if dtype.hasobject:
        raise pickle.UnpicklingError("an array of objects can't be restored from bytes")
    return np.frombuffer(content, dtype).reshape(shape, order=order).copy(order=order).view(LoadedArray)


def scalar(pickled: Any, content: Any = b"") -> Any:
    """For ``numpy._core.multiarray.scalar``: a scalar from its bytes."""
    resolved = _resolved(pickled)
    if resolved.hasobject or not isinstance(content, bytes) or len(content) != resolved.itemsize:
        raise pickle.UnpicklingError(f"a scalar of {resolved} can't be restored from {content!r:.40}")
    return np.ndarray((), resolved, content)[()] if content else resolved.type()
