"""Ctrl-C ends a tool within two seconds, also inside a long call of a backend; so does SIGTERM, by which Kubernetes,
Slurm and ``docker stop`` ask it to end.

Python raises ``KeyboardInterrupt`` only when the main thread comes back from native code, and a build or an inference
may not for minutes. A thread waits for the signal too, and ends the process when the main thread has not by then. What
a process that ends so leaves behind is what a killed one does: nothing half written under its final name.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import NamedTuple


class Ending(NamedTuple):
    """What a tool that a signal ends says, and its exit code: 128 and the signal's number, as shells have it."""

    words: str
    code: int


_KEPT = "finished work is kept, run the command again to continue"
INTERRUPTED = Ending(f"interrupted; {_KEPT}", 128 + signal.SIGINT)
TERMINATED = Ending(f"terminated; {_KEPT}", 128 + signal.SIGTERM)

_SECONDS_TO_END = 1.5


class Terminated(KeyboardInterrupt):
    """SIGTERM has come."""


def ending(error: BaseException) -> Ending:
    """How a tool ends by a ``KeyboardInterrupt``, or by what click raises from one."""
    return TERMINATED if isinstance(error, Terminated) or isinstance(error.__cause__, Terminated) else INTERRUPTED


@contextlib.contextmanager
def prompt_interrupts() -> Iterator[None]:
    """Within the block, an interrupt or SIGTERM ends the process in time; outside the main thread, and where a program
    has handlers of its own, nothing changes.
    """
    is_main = threading.current_thread() is threading.main_thread()
    # A shell ignores interrupts for what it runs in the background.
    if not is_main or signal.getsignal(signal.SIGINT) not in (signal.default_int_handler, signal.SIG_IGN):
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    if handler is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)
    endings = {int(signal.SIGINT): INTERRUPTED}
    if signal.getsignal(signal.SIGTERM) is _terminate:
        endings[int(signal.SIGTERM)] = TERMINATED
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    before = signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    ended = threading.Event()
    threading.Thread(target=_watch, args=(receiver, ended, endings), name="interrupts", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        os.close(sender)
        if handler is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def terminating() -> Iterator[None]:
    """Within the block, a library (Ray) takes SIGTERM for itself; afterwards it is as before."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is not handler:
            signal.signal(signal.SIGTERM, handler)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


def _watch(receiver: int, ended: threading.Event, endings: Mapping[int, Ending]) -> None:
    try:
        while signals := os.read(receiver, 64):
            found = next((endings[number] for number in signals if number in endings), None)
            if found is not None and not ended.wait(_SECONDS_TO_END):
                os.write(2, f"{found.words}\n".encode())
                os._exit(found.code)
    finally:
        os.close(receiver)
