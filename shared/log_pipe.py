"""The standard error in the form of the log as JSON (`shared.logs`), whoever writes to it."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
from collections.abc import Iterator
from typing import NoReturn

from shared.logs import is_line, line
from shared.terminal import discard_output

# A process that outlives the command may still hold its standard error.
_SECONDS_FOR_THE_REST = 2.0
_LONGEST_READ = 1 << 20
_BEGIN = '{"time": "'


@contextlib.contextmanager
def only_lines(tool: str) -> Iterator[None]:
    """Within the block, all that comes to the standard error are lines of the log: others become an ``output`` each.

    So do those of native libraries and of processes that are started. A process of its own reads them: native code that
    holds Python's lock would wait for a thread forever once the pipe is full, and the last words of a process that
    crashes would be lost with it. Where the standard error is no file descriptor (tests), nothing changes.
    """
    if not _is_descriptor_2():
        yield
        return
    kept = os.dup(2)
    receiver, sender = os.pipe()
    ended, alive = os.pipe()
    child = os.fork()
    if child == 0:
        _rewrite(tool, receiver, kept, alive)
    os.close(receiver)
    os.close(alive)
    os.dup2(sender, 2)
    os.close(sender)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        select.select([ended], [], [], _SECONDS_FOR_THE_REST)
        os.close(ended)
        os.waitpid(child, os.WNOHANG)


def _is_descriptor_2() -> bool:
    try:
        return sys.stderr is not None and sys.stderr.fileno() == 2
    except OSError:
        return False


def _rewrite(tool: str, receiver: int, output: int, alive: int) -> NoReturn:
    """The process that passes lines on until nobody can write any more."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        for descriptor in (0, 1, 2):
            discard_output(descriptor)
        for descriptor in set(range(3, 256)) - {receiver, output, alive}:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        with open(receiver, "rb") as lines:
            while read := lines.readline(_LONGEST_READ):
                for made in _as_lines(tool, read.decode("utf-8", "backslashreplace")):
                    _write(output, made)
    finally:
        os._exit(0)


def _as_lines(tool: str, text: str) -> Iterator[str]:
    """What was written up to a line break, as lines; one of ours may follow what somebody left without a break."""
    before, begin, rest = text.rpartition(_BEGIN)
    made = is_line(begin + rest)
    for part in re.split("[\r\n]", before if made else text):
        if part.strip():
            yield line(tool, "INFO", "output", part.rstrip())
    if made:
        yield (begin + rest).rstrip("\n")


def _write(output: int, text: str) -> None:
    rest = text.encode() + b"\n"
    # Whoever reads them may have gone; the work goes on.
    with contextlib.suppress(OSError):
        while rest:
            rest = rest[os.write(output, rest) :]
