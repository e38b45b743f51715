"""How often files are opened, counted by Python's own audit events: what a command reads, whoever reads it."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_counters: list[Counter[str]] = []
_installed: list[bool] = []  # whether the hook is; hooks can't be removed


def _count(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _counters and isinstance(arguments[0], str):
        for counter in _counters:
            counter[Path(arguments[0]).name] += 1


@contextlib.contextmanager
def opened_files() -> Iterator[Counter[str]]:
    """How often each file was opened in the block, by its name. Writers open theirs under temporary names."""
    if not _installed:
        sys.addaudithook(_count)
        _installed.append(True)
    counter: Counter[str] = Counter()
    _counters.append(counter)
    try:
        yield counter
    finally:
        _counters.remove(counter)
