"""Reads JSON of others: no more of it, no deeper and no stranger than what our writers write.

Python's reader takes NaN, numbers of any size, keys that repeat, halves of surrogate pairs and NUL in text; each of
them ends in a traceback, or in another value than was meant, somewhere later.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from shared.errors import InputError
from shared.regular_files import open_regular
from shared.text import check_text

#: Most bytes of a manifest: 60,000 artifacts.
MANIFEST_BYTES = 16 << 20
#: Most bytes of what else our tools write: records, headers.
RECORD_BYTES = 64 << 20
#: Most bytes of data: info files, annotations, predictions.
DATA_BYTES = 2 << 30

_DEEPEST = 100
_MOST_DIGITS = 20  # 64 bits
_LARGEST = 10**_MOST_DIGITS
# Escapes whose text may be no text; whether it is one, a look at the value says.
_DOUBTFUL = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")


def read_json(
    path: Path, *, most_bytes: int = RECORD_BYTES, allow_nan: bool = False, error: type[InputError] = InputError
) -> Any:
    """The value in a JSON file.

    Args:
        path: the file.
        most_bytes: a larger file is refused.
        allow_nan: take NaN and infinities, as Python writes them.
        error: what to raise for a file that is not JSON.

    Raises:
        InputError: missing, not a regular file, too large, or not JSON.
    """
    with open_regular(path, error=error) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise error(f"is larger than {most_bytes >> 20} MB", where=str(path), hint="no tool here wrote it")
    return parse_json(content, str(path), allow_nan=allow_nan, error=error)


def parse_json(
    content: str | bytes, where: str, *, allow_nan: bool = False, error: type[InputError] = InputError
) -> Any:
    """The value of a JSON text.

    Args:
        content: the text, or its UTF-8.
        where: names it in errors.
        allow_nan: take NaN and infinities, as Python writes them.
        error: what to raise.

    Raises:
        InputError: not JSON, or JSON that nests too deeply, repeats a key, or has numbers or text that can't be kept.
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        value = _DECODERS[allow_nan].decode(text)
        _check_values(value, allow_nan)
        if _DOUBTFUL.search(text):
            check_text(value)
    except RecursionError as cause:
        raise error(f"can't be read as JSON (it nests more than {_DEEPEST} levels)", where=where) from cause
    except ValueError as cause:
        raise error(f"can't be read as JSON ({cause})", where=where) from cause
    return value


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)[:80]!r} is there twice")
    return value


# Numbers are looked at afterwards: a function of Python for each of them takes ten times as long.
_DECODERS = {
    allow_nan: json.JSONDecoder(parse_constant=float if allow_nan else _no_number, object_pairs_hook=_object)
    for allow_nan in (False, True)
}


def _check_values(value: Any, allow_nan: bool) -> None:
    """Raises ValueError where containers nest too deeply, or a number is too large."""
    level = [[value]]
    for _ in range(_DEEPEST + 1):
        deeper = []
        for container in level:
            for item in _items(container):
                kind = type(item)
                if kind is dict or kind is list:
                    deeper.append(item)
                elif kind is int and not -_LARGEST < item < _LARGEST:
                    raise ValueError(f"the number {str(item)[:_MOST_DIGITS]}... has {len(str(item))} digits")
                elif kind is float and not allow_nan and not math.isfinite(item):
                    raise ValueError("a number is too large for a float")
        if not deeper:
            return
        level = deeper
    raise ValueError(f"it nests more than {_DEEPEST} levels")


def _items(container: Any) -> Any:
    return container.values() if isinstance(container, dict) else container if isinstance(container, list) else ()
