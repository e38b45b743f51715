"""Building in the background: progress, a sign of life, and Ctrl-C that ends it cleanly.

TensorRT builds for minutes without returning to Python. So it builds in a thread; the main thread waits, shows where it
is, and on Ctrl-C asks it to stop, which versions with a progress monitor (10.0 and newer) do.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from shared.interrupts import ending
from shared.logs import event
from trt_builder import compat
from trt_builder.compat import TensorRT

_log = logging.getLogger("build")

Result = TypeVar("Result")

_THREAD = "tensorrt builds"
_SECONDS_BETWEEN_LINES = 15.0
_SECONDS_BETWEEN_LOOKS = 0.1


class Phases:
    """Where a build is; TensorRT's threads write it, the main thread reads it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, tuple[int, int]] = {}  # phase -> steps done, steps in all
        self._canceled = threading.Event()

    def start(self, name: str, steps: int) -> None:
        """A phase begins."""
        with self._lock:
            self._open[name] = (0, steps)

    def step(self, name: str, done: int) -> bool:
        """A step of it is done; False asks TensorRT to stop."""
        with self._lock:
            if name in self._open:
                self._open[name] = (done + 1, self._open[name][1])
        return not self._canceled.is_set()

    def finish(self, name: str) -> None:
        """A phase ends."""
        with self._lock:
            self._open.pop(name, None)

    def cancel(self) -> None:
        """Ask TensorRT to stop at its next step."""
        self._canceled.set()

    def canceled(self) -> bool:
        """Whether it was asked to."""
        return self._canceled.is_set()

    def open(self) -> dict[str, tuple[int, int]]:
        """Phases that have begun and not ended, the outer ones first: steps done, steps in all."""
        with self._lock:
            return dict(self._open)


def make_monitor(tensorrt: TensorRT, phases: Phases) -> Any | None:
    """TensorRT's progress monitor, or None where it has none (8.6)."""
    if not compat.has(tensorrt.trt, "IProgressMonitor"):
        return None
    base = compat.need(tensorrt, "IProgressMonitor", "progress monitor")

    class Monitor(base):  # type: ignore[misc,valid-type]
        def __init__(self) -> None:
            base.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:  # noqa: ARG002 - TensorRT's signature
            phases.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return phases.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            phases.finish(phase_name)

    return Monitor()


def run(work: Callable[[], Result], description: str, phases: Phases, *, can_cancel: bool) -> Result:
    """Do ``work`` in a thread, and show that it lives.

    Args:
        work: the build.
        description: what is built.
        phases: where it is.
        can_cancel: whether TensorRT listens to `Phases.cancel`; if not, Ctrl-C leaves at once and the thread behind.

    Raises:
        KeyboardInterrupt: the user pressed Ctrl-C; the build has stopped, where it can be stopped.
    """
    outcome: list[Result] = []
    errors: list[BaseException] = []

    def target() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001 - handed to the caller, below
            errors.append(error)

    thread = threading.Thread(target=target, name=f"{_THREAD} {description}", daemon=True)
    started = time.monotonic()
    try:
        thread.start()
        _watch(thread, description, phases, started)
    except KeyboardInterrupt:
        phases.cancel()
        _log.info("%s: stopping", description)
        if can_cancel and thread.is_alive():
            thread.join()
        raise
    if errors:
        raise errors[0]
    return outcome[0]


def leave_behind_builds(error: KeyboardInterrupt) -> None:
    """After Ctrl-C or SIGTERM: end the process at once when TensorRT still builds and can't be stopped (8.6).

    An orderly end would take TensorRT's libraries down while it uses them.

    Args:
        error: which of the two.
    """
    if any(thread.name.startswith(_THREAD) for thread in threading.enumerate()):
        words, code = ending(error)
        sys.stderr.write(f"{words}\n")
        sys.stderr.flush()
        os._exit(code)


def _watch(thread: threading.Thread, description: str, phases: Phases, started: float) -> None:
    if sys.stderr.isatty():
        _bars(thread, description, phases)
    else:
        _lines(thread, description, phases, started)


def _bars(thread: threading.Thread, description: str, phases: Phases) -> None:
    """A bar for every phase that is open; where TensorRT reports none (8.6), one that only shows that it is alive."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[steps]}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        shown.add_task(f"{description}: building", total=None, steps="")
        bars: dict[str, Any] = {}
        while thread.is_alive():
            thread.join(_SECONDS_BETWEEN_LOOKS)
            now = phases.open()
            for name in bars.keys() - now.keys():
                shown.remove_task(bars.pop(name))
            for name, (done, steps) in now.items():
                if name not in bars:
                    bars[name] = shown.add_task(f"  {name}", total=steps, steps="")
                shown.update(bars[name], completed=done, steps=f"{done}/{steps}")


def _lines(thread: threading.Thread, description: str, phases: Phases, started: float) -> None:
    last = started
    while thread.is_alive():
        thread.join(_SECONDS_BETWEEN_LOOKS)
        now = time.monotonic()
        if now - last < _SECONDS_BETWEEN_LINES:
            continue
        last = now
        innermost = [f"{name} {done}/{steps}" for name, (done, steps) in phases.open().items()][-1:]
        _log.info(
            "%s",
            " ".join([f"{description}: building for {now - started:.0f} s", *innermost]),
            extra=event("progress", seconds=round(now - started, 1)),
        )
