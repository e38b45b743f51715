"""Runs a command line in this process, as its user sees it, and says what of the answer is not fit for one."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType

from shared.text import LONGEST_LINE
from tests.support.command_lines import tool

# Of a clock, for what waits for nothing; of a processor, however busy the machine is, for what computes on and on.
SECONDS, PROCESSOR_SECONDS = 120, 20
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e]")


@dataclass(frozen=True)
class Answer:
    """What a command line said, and its exit code; None when it took too long."""

    code: int | None
    out: str
    err: str

    def faults(self, codes: Sequence[int]) -> list[str]:
        """What a user could not live with.

        Args:
            codes: exit codes that are right.
        """
        errors = [line for line in self.err.splitlines() if line.startswith(("error:", "Error:"))]
        found = {
            f"takes more than {SECONDS} s, or {PROCESSOR_SECONDS} s of a processor": self.code is None,
            f"exit code {self.code}, not one of {list(codes)}": self.code is not None and self.code not in codes,
            "a traceback": "Traceback" in self.err,
            "calls itself a bug": "This is a bug" in self.err,
            "no line that says what is wrong": bool(self.code) and not errors,
            "control characters": _CONTROL.search(self.out + self.err) is not None,
            "a line that is too long": any(len(line) > LONGEST_LINE + 60 for line in self.err.splitlines()),
        }
        return [fault for fault, is_so in found.items() if is_so]


class TooLong(BaseException):
    """Ends a command; nothing that handles errors catches it."""


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """End what takes too long with `TooLong`."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise TooLong

    limits = ((signal.SIGALRM, signal.ITIMER_REAL, SECONDS), (signal.SIGPROF, signal.ITIMER_PROF, PROCESSOR_SECONDS))
    before = {number: signal.signal(number, end) for number, _, _ in limits}
    for _, timer, seconds in limits:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for number, timer, _ in limits:
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


def run(arguments: Sequence[str]) -> Answer:
    """Run a tool: its name, and what follows it."""
    out, err = io.StringIO(), io.StringIO()
    handlers, level = logging.root.handlers[:], logging.root.level
    code: int | None = None
    try:
        with time_limit(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            tool(arguments[0]).main(list(arguments[1:]))
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except TooLong:
        code = None
    finally:
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
    return Answer(code, out.getvalue(), err.getvalue())
