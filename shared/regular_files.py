"""Reading the files that a user names: only regular ones, so that a pipe or a device gives a line instead of a wait."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from shared.errors import InputError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def open_regular(path: Path, *, hint: str | None = None, error: type[InputError] = InputError) -> BinaryIO:
    """A regular file, open for reading; symbolic links are followed.

    Args:
        path: the file.
        hint: what to do when it can't be opened.
        error: what to raise then.

    Raises:
        InputError: missing, unreadable, or a folder, pipe, device or socket.
    """
    where = str(path)
    try:
        # A pipe without a writer would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as cause:
        reason = "is a socket, not a file" if cause.errno == errno.ENXIO else cause.strerror
        raise error(f"can't be read ({reason})", where=where, hint=hint) from cause
    except ValueError as cause:  # a NUL or half a surrogate pair
        raise error(f"is not a path ({cause})", where=where, hint=hint) from cause
    mode = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if mode != stat.S_IFREG:
        os.close(descriptor)
        raise error(f"can't be read (is {_KINDS.get(mode, 'something else')}, not a file)", where=where, hint=hint)
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, *, hint: str | None = None) -> bytes:
    """The content of a regular file.

    Raises:
        InputError: as `open_regular`; or it does not fit into memory.
    """
    with open_regular(path, hint=hint) as file:
        try:
            return file.read()
        except OSError as error:
            raise InputError(f"can't be read ({error.strerror})", where=str(path), hint=hint) from error
        except MemoryError as error:
            raise InputError("needs more memory than there is", where=str(path), hint=hint) from error


def read_text(path: Path, *, hint: str | None = None) -> str:
    """The content of a regular file in UTF-8.

    Raises:
        InputError: as `read_bytes`; or it is not UTF-8.
    """
    try:
        return read_bytes(path, hint=hint).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"is not text in UTF-8 ({error.reason} at byte {error.start})", where=str(path)) from error
