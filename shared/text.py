"""Text out of files, made fit for a terminal.

A name in a manifest or an ONNX file may hold escape sequences, which would move the cursor, rename the window or hide a
line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

LONGEST_LINE = 500

# C0 and C1 controls, DEL, line and paragraph separators, changes of direction, and halves of surrogate pairs.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_UNPRINTABLE_IN_TEXT = re.compile(_UNPRINTABLE.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "surrogatepass").decode()


def printable(text: str) -> str:
    """``text`` with its control characters, other than newlines and tabs, written as escapes such as ``\\x1b``."""
    return _UNPRINTABLE_IN_TEXT.sub(_escaped, text)


def one_line(text: str, longest: int = LONGEST_LINE) -> str:
    """``text`` as one line: all its control characters as escapes, and its middle left out where it is too long."""
    line = _UNPRINTABLE.sub(_escaped, text[: 4 * longest] + text[4 * longest :][-4 * longest :])
    if len(line) <= longest:
        return line
    half = (longest - 5) // 2
    return f"{line[:half]} ... {line[-half:]}"


def check_text(value: Any) -> None:
    """Check that all texts in a JSON value can be a file name and be written as UTF-8.

    Raises:
        ValueError: one holds NUL, or half a surrogate pair.
    """
    for text in _texts(value):
        if "\0" in text:
            raise ValueError("a text holds the character NUL")
        text.encode("utf-8")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
