"""The standard streams and log files of a command line.

Output that can't be written (a closed pipe, a full disk) never stops the work that it is about: the streams here
remember it, and the command line says so at the end.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from pathlib import Path
from typing import TextIO

from shared.errors import EnvironmentLacks
from shared.text import one_line, printable


class OutputStream(io.TextIOBase):
    """A standard stream that writes what it can and remembers what it could not.

    Args:
        stream: the stream that it writes to; None if there is none.
        escape: replace control characters, too.
    """

    def __init__(self, stream: TextIO | None, *, escape: bool) -> None:
        self._stream = stream
        self._escape = escape
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write ``text``, or remember why not."""
        if self._stream is None:
            self.failure = self.failure or OSError(errno.EBADF, os.strerror(errno.EBADF))
        elif self.failure is None:
            try:
                self._stream.write(printable(text) if self._escape else text)
            except OSError as error:
                self.failure = error
            except UnicodeEncodeError:  # a terminal that is not UTF-8
                self._stream.write(text.encode("ascii", "backslashreplace").decode())
        return len(text)

    def flush(self) -> None:
        """Flush, or remember why not."""
        if self._stream is not None and self.failure is None:
            try:
                self._stream.flush()
            except OSError as error:
                self.failure = error

    @property
    def encoding(self) -> str:  # type: ignore[override]  # an attribute in typeshed
        """Of the stream below."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether the stream below is a terminal; one that is closed is none."""
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def fileno(self) -> int:
        """Of the stream below."""
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    def writable(self) -> bool:
        """True."""
        return True


def hold_standard_descriptors() -> None:
    """Open the standard descriptors that the caller closed, so that no file of ours becomes number 1 or 2."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def discard_output(descriptor: int) -> None:
    """Send what is still buffered for a stream that failed to nowhere, or Python complains when it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


class LineFormatter(logging.Formatter):
    """Formats a record without control characters, its lines not too long."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return "\n".join(one_line(line) for line in super().format(record).split("\n"))


class LogFile(logging.FileHandler):
    """A log file that never stops the work: when it can't be written to, that is remembered.

    Raises:
        EnvironmentLacks: it can't be opened, or is a pipe that nobody may ever read.
    """

    def __init__(self, path: Path) -> None:
        self.failure: str | None = None
        self.path = path
        try:
            if path.is_fifo():
                raise EnvironmentLacks("the log file is a pipe", where=str(path), hint="give a file to --log-file")
            super().__init__(path)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise EnvironmentLacks(
                f"the log file can't be written ({reason})", where=str(path), hint="give another file to --log-file"
            ) from error

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, ARG002  # a hook of logging
        """Remember why the record could not be written."""
        error = sys.exc_info()[1]
        self.failure = (error.strerror if isinstance(error, OSError) else None) or str(error)
