"""Progress: a bar with the time left on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from shared.logs import event

Item = TypeVar("Item")

_log = logging.getLogger("progress")
# A log line every ten seconds is enough to see that a job is alive, and does not drown out the rest.
_SECONDS_BETWEEN_LINES = 10.0


class Advance(Protocol):
    """Says that more is done."""

    def __call__(self, items: int, note: str = "") -> None:
        """Args: how many items were done since the last call, and what else is to be shown, such as who works."""


def track(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    """Yield ``items`` and show the progress."""
    with progress(description, total) as advance:
        for item in items:
            yield item
            advance(1)


@contextlib.contextmanager
def progress(description: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Show the progress of work that says itself how far it is.

    Args:
        description: of the work.
        total: how many items there are.
        done: how many of them were done before.
    """
    with (_bar if sys.stderr.isatty() else _lines)(description, total, done) as advance:
        yield advance


@contextlib.contextmanager
def _bar(description: str, total: int, done: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(description, total=total, completed=done, note="")

        def advance(items: int, note: str = "") -> None:
            shown.update(task, advance=items, note=note)

        yield advance


@contextlib.contextmanager
def _lines(description: str, total: int, done: int) -> Iterator[Advance]:
    started = last = time.monotonic()
    count = 0

    def advance(items: int, note: str = "") -> None:
        nonlocal count, last
        count += items
        now = time.monotonic()
        if count and now - last >= _SECONDS_BETWEEN_LINES and done + count < total:
            last = now
            left = (now - started) / count * (total - done - count)
            also = f"; {note}" if note else ""
            extra = event("progress", done=done + count, total=total, seconds_left=round(left, 1))
            _log.info("%s: %d of %d, about %.0f s left%s", description, done + count, total, left, also, extra=extra)

    yield advance
