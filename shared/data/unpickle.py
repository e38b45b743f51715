"""Reads pickles that hold plain data, and refuses all others.

Info files of mmdet3d and AWML are pickles, and loading a pickle runs whatever it names. Here it may name plain
containers, dates, and NumPy's arrays, scalars and dtypes; any other class or function is refused before it is imported.
No library does this: fickling and picklescan only detect what a pickle would run, and ``torch.load(weights_only=True)``
needs PyTorch. What it gets for a name are stand-ins, since the originals trust their arguments: ``bytes(10**12)`` is
one call. The opcodes are checked before (`pickle_scan`), the result after: no cycles, and neither deep nor, written
out, much larger than the file.
"""

from __future__ import annotations

import datetime
import io
import pickle
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from shared.data import pickled_arrays
from shared.data.pickle_scan import scanned
from shared.data.pickled_arrays import Array, EmptyArray, LoadedArray, become
from shared.errors import InputError
from shared.regular_files import read_bytes

_DEEPEST = 100
# An object that is used in many places is stored once; what doubles with each level is an attack.
_MOST_VALUES, _MOST_VALUES_PER_BYTE = 10_000_000, 16


class _StandIn:
    """What a pickle gets for a name: no class, so that only a call makes an instance, and nothing it could change."""

    __slots__ = ("_restore",)

    def __init__(self, restore: Callable[..., Any]) -> None:
        self._restore = restore

    def __call__(self, *arguments: Any) -> Any:
        return self._restore(*arguments)

    def __setstate__(self, _state: Any) -> None:
        raise pickle.UnpicklingError("a class or function is changed")


def _no_instance(*_arguments: Any) -> Any:
    """For types that a default dictionary may name, and whose values have opcodes of their own."""
    raise pickle.UnpicklingError("a plain value is made by a call")


def _encode(text: Any, encoding: Any) -> bytes:
    """Bytes, as pickle protocols 0 to 2 write them: text in latin1."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r:.40} is not allowed")
    return text.encode("latin1")


def _bytearray(content: Any = b"", encoding: Any = None) -> bytearray:
    if isinstance(content, str) and encoding == "latin-1":
        return bytearray(content, "latin-1")
    if not isinstance(content, bytes):
        raise pickle.UnpicklingError(f"bytes were expected, not {type(content).__name__}")
    return bytearray(content)


def _bytes() -> bytes:
    return b""


def _complex(real: Any, imaginary: Any) -> complex:
    return complex(float(real), float(imaginary))


def _dict(*_factory: Any) -> dict[Any, Any]:
    """Ordered and default dictionaries come back as plain ones; their items follow."""
    return {}


def _set(members: Any = ()) -> set[Any]:
    # Tuples and large integers can be made to hash slowly, or to the same number.
    if not isinstance(members, list | tuple) or any(
        isinstance(member, tuple) or (isinstance(member, int) and member.bit_length() > 64) for member in members
    ):
        raise pickle.UnpicklingError("a set is restored from something other than text and numbers")
    return set(members)


def _frozenset(members: Any = ()) -> frozenset[Any]:
    return frozenset(_set(members))


def _moment(kind: Any) -> Callable[..., Any]:
    """Dates and times come as bytes, of which Python checks the month alone; ``replace`` checks the rest."""
    return lambda *state: kind(*state).replace()


_NUMPY_CORES = ("numpy.core", "numpy._core")  # before and since NumPy 2

_BUILTINS = ("builtins", "__builtin__")  # of Python 3 and 2
_NAMES: tuple[tuple[Sequence[str], str, Callable[..., Any]], ...] = (
    *((_BUILTINS, kind.__name__, _no_instance) for kind in (bool, int, float, str, list, tuple)),
    (_BUILTINS, "bytes", _bytes),
    (_BUILTINS, "bytearray", _bytearray),
    (_BUILTINS, "complex", _complex),
    (_BUILTINS, "dict", _dict),
    (_BUILTINS, "set", _set),
    (_BUILTINS, "frozenset", _frozenset),
    (("collections",), "OrderedDict", _dict),
    (("collections",), "defaultdict", _dict),
    *((("datetime",), kind.__name__, _moment(kind)) for kind in (datetime.date, datetime.datetime, datetime.time)),
    (("datetime",), "timedelta", datetime.timedelta),
    (("datetime",), "timezone", datetime.timezone),
    (("numpy",), "ndarray", _no_instance),
    (("numpy",), "dtype", pickled_arrays.dtype),
    (tuple(f"{core}.multiarray" for core in _NUMPY_CORES), "_reconstruct", pickled_arrays.reconstruct),
    (tuple(f"{core}.multiarray" for core in _NUMPY_CORES), "scalar", pickled_arrays.scalar),
    (tuple(f"{core}.numeric" for core in _NUMPY_CORES), "_frombuffer", pickled_arrays.from_buffer),
    (("_codecs",), "encode", _encode),
)

_ALLOWED = {(module, name): _StandIn(restore) for modules, name, restore in _NAMES for module in modules}


class _DataUnpickler(pickle.Unpickler):
    def __init__(self, content: bytes, where: str) -> None:
        super().__init__(io.BufferedReader(io.BytesIO(content)))
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

    Arrays come back as a subclass of ``numpy.ndarray`` that behaves the same, ordered and default dictionaries as
    plain ones.

    Raises:
        InputError: the file is missing, is not a pickle, is truncated, or names or holds anything but plain data; the
            message has the class it names.
    """
    where = str(path)
    content = read_bytes(path)
    try:
        value = _DataUnpickler(scanned(content), where).load()
        _check_extent(value, _MOST_VALUES + _MOST_VALUES_PER_BYTE * len(content))
    except MemoryError as error:
        raise InputError("needs more memory than there is", where=where) from error
    except (
        # What the unpickler and the constructors that it calls raise on bytes that are not a pickle, or a damaged one.
        *(pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError, OverflowError),
        *(RecursionError, TypeError, ValueError, struct.error),
    ) as error:
        raise InputError(
            f"can't be read as a pickle ({error})", where=where, hint="the file is truncated or of another kind"
        ) from error
    return value


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list | tuple | set | frozenset):
        return value
    if isinstance(value, EmptyArray):
        raise pickle.UnpicklingError("an array has no content")
    if isinstance(value, LoadedArray):
        become(value, Array)
        return value.flat if value.dtype.hasobject else ()
    return ()


_LEAVES = frozenset((float, int, str, bool, type(None), bytes))


def _check_extent(root: Any, most: int) -> None:
    """Refuse a value that contains itself, nests deeper than `_DEEPEST`, or has over ``most`` values written out.

    Arrays become what a caller may change.
    """
    sizes = {id(root): 0}  # by id, of finished containers; 0 for those that are open
    path = [(root, iter(_children(root)))]
    counts = [1]
    while path:
        value, children = path[-1]
        for child in children:
            if type(child) in _LEAVES:
                counts[-1] += 1
            elif id(child) in sizes:
                if not sizes[id(child)]:
                    raise pickle.UnpicklingError("it contains itself")
                counts[-1] += sizes[id(child)]
            else:
                if len(path) >= _DEEPEST:
                    raise pickle.UnpicklingError(f"it nests more than {_DEEPEST} levels")
                sizes[id(child)] = 0
                path.append((child, iter(_children(child))))
                counts.append(1)
                break
        else:
            path.pop()
            sizes[id(value)] = size = counts.pop()
            if size > most:
                raise pickle.UnpicklingError(f"written out it has more than {most:,} values")
            if counts:
                counts[-1] += size
