"""Info files as pickles: plain data comes out, or a line."""

from __future__ import annotations

import collections
import datetime
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from shared.data.pickled_arrays import Array
from shared.data.unpickle import load_pickle
from tests.fuzz.engine import Reader

_TYPES = (
    *(dict, list, tuple, set, frozenset, str, bytes, bytearray, bool, int, float, complex, type(None)),
    *(datetime.date, datetime.time, datetime.timedelta, datetime.timezone, np.generic, Array),
)
# Names that stand for themselves; nothing can be done with them.
_STAND_INS = ("_StandIn", "Dtype")


def _read(file: Path) -> None:
    value = load_pickle(file)
    _check_types(value)
    repr(value)  # what an error message would do


def _check_types(value: Any) -> None:
    if not isinstance(value, _TYPES) and type(value).__name__ not in _STAND_INS:
        raise AssertionError(f"{type(value)} came out")
    if isinstance(value, dict):
        for item in (*value, *value.values()):
            _check_types(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            _check_types(item)
    elif isinstance(value, Array):
        for item in value.flat:
            _check_types(item)


def _seeds() -> list[bytes]:
    entry = {
        "token": "a", "timestamp": 1.5, "lidar_points": {"lidar_path": "x.bin", "lidar2ego": np.eye(4)},
        "names": np.array(["car", "bus"]), "mixed": np.array([{"a": 1}, None, "b"], dtype=object),
        "boxes": np.zeros((2, 7), np.float32), "one": np.float64(2.0), "valid": np.bool_(True),
        "seen": {1, 2}, "frozen": frozenset({"a"}), "raw": bytearray(b"\x00\xff"), "bytes": b"\x80", "z": 1 + 2j,
        "made": datetime.datetime(2026, 1, 2, 3, 4, 5, 6, datetime.timezone.utc), "at": datetime.time(1),
        "order": collections.OrderedDict(a=1), "counts": collections.defaultdict(list, b=[1]), "big": 1 << 70,
    }  # fmt: skip
    values = ({"metainfo": {"classes": ("car",)}, "data_list": [entry]}, [np.arange(3), np.array(["x", None])], entry)
    return [pickle.dumps(value, protocol) for value in values for protocol in range(6)]


_NAMES = (
    *("numpy\nndarray", "numpy\ndtype", "numpy._core.multiarray\n_reconstruct", "numpy.core.multiarray\nscalar"),
    *("numpy._core.numeric\n_frombuffer", "_codecs\nencode", "builtins\nbytes", "builtins\nbytearray"),
    *("builtins\nlist", "builtins\nset", "builtins\nfrozenset", "builtins\ndict", "builtins\nint", "builtins\neval"),
    *("collections\nOrderedDict", "collections\ndefaultdict", "datetime\ndatetime", "datetime\ntimezone"),
    "posix\nsystem",
)
_OPCODES = (
    *b"(.0120FIJKLMNPRSTUVXabcdeghijlopqrstu)]}\x80\x81\x82\x85\x86\x87\x88\x8a\x8c",
    *range(0x8D, 0x99),
)
_RUNS = (
    *(b"\x85R", b"\x85\x85\x85", b"h\x01", b"h\x02", b"K\xff", b"K\x01", b"J\xff\xff\xff\x7f", b"\x94", b"Rb"),
    *(b"\x8a\x08" + b"\xff" * 8, b"r\xff\xff\xff\x7f", b"X\xff\xff\xff\x7f", b"\x8d" + b"\xff" * 8),
    *(b"\x95" + b"\xff" * 8, b"\x95\x05" + b"\0" * 7, b"(lp0\n", b"p99999999\n"),
    *(pickle.dumps(np.array(["x", None], dtype=object), 2)[2:-1], pickle.dumps(np.arange(3), 4)[11:-1]),
)
_TOKENS = (*(bytes([code]) for code in _OPCODES * 2), *(f"c{name}\n".encode() for name in _NAMES), *_RUNS)


READER = Reader("info_pickle", _read, ".pkl", _seeds, _TOKENS)
