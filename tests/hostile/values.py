"""Values and files that somebody could send."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

#: What takes the place of a value in JSON or YAML.
VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "minus one": -1,
    "zero": 0,
    "huge": 10**18,
    "float": 1e300,
    "empty text": "",
    "escapes": "\x1b]0;gone\x07\nerror: well\x9b",
    "long text": "x" * 100_000,
    "outside": "../../../etc/passwd",
    "absolute": "/dev/zero",
    "list": [],
    "object": {},
    "deep": [[[[[[[["a"]]]]]]]],
    "mixed list": [None, "a", -1, {}],
}

#: Texts that take the place of a number in an option.
NUMBERS = ("nan", "inf", "-inf", "-1000000000000", "1000000000000", "1e400", "9" * 5000, "", "one", "\x1b[31m", "0x10")


def _socket(path: Path) -> None:
    # The path of a socket has at most 107 bytes.
    with socket.socket(socket.AF_UNIX) as listener:
        before = Path.cwd()
        os.chdir(path.parent)
        listener.bind(path.name)
        os.chdir(before)


#: What can lie where a file is expected.
FILES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
    "socket": _socket,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(1000)),
    "ones": lambda path: path.write_bytes(b"\xff" * 1001),
    "text": lambda path: path.write_text("hello \x1b[31m\n" * 9),
    "one line": lambda path: path.write_text("x" * 300_000),
    "open brackets": lambda path: path.write_text("[" * 100_000),
    "braces": lambda path: path.write_text('{"a":' * 100_000),
    "pickle": lambda path: path.write_bytes(b"\x80\x04cos\nsystem\n\x8c\x04true\x85R."),
    "zip": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(60)),
    "not UTF-8": lambda path: path.write_bytes(b"a: \xff\xfe\n"),
}


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to all values in a JSON value; of a list, to its first entry alone."""
    if above:
        yield above
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*above, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*above, 0))


def replaced(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    """A copy of a JSON value with another value at a path."""
    if not place:
        return new
    key, *rest = place
    if isinstance(value, dict):
        return {**value, key: replaced(value[key], tuple(rest), new)}
    return [replaced(item, tuple(rest), new) if at == key else item for at, item in enumerate(value)]
