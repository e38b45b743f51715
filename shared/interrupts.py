"""Ctrl-C ends a tool within two seconds, also inside a long call of a backend.

Python raises ``KeyboardInterrupt`` only when the main thread comes back from native code, and a build or an inference
may not for minutes. A thread waits for the signal too, and ends the process when the main thread has not by then. What
a process that ends so leaves behind is what a killed one does: nothing half written under its final name.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

EXIT_INTERRUPTED = 130
INTERRUPTED = "interrupted; finished work is kept, run the command again to continue"

_SECONDS_TO_END = 1.5


@contextlib.contextmanager
def prompt_interrupts() -> Iterator[None]:
    """Within the block, an interrupt ends the process in time; outside the main thread, nothing changes."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    before = signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    ended = threading.Event()
    threading.Thread(target=_watch, args=(receiver, ended), name="interrupts", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        os.close(sender)


def _watch(receiver: int, ended: threading.Event) -> None:
    try:
        while signals := os.read(receiver, 64):
            if signal.SIGINT in signals and not ended.wait(_SECONDS_TO_END):
                os.write(2, f"{INTERRUPTED}\n".encode())
                os._exit(EXIT_INTERRUPTED)
    finally:
        os.close(receiver)
