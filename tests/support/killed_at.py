"""Runs a tool that is killed before a call of a function: in the same place on a fast and on a slow machine.

python -m tests.support.killed_at MODULE:FUNCTION NUMBER TOOL ARGUMENT...
"""

from __future__ import annotations

import functools
import importlib
import itertools
import operator
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def killed_at(place: str, number: int, tool: str, *arguments: str | Path) -> None:
    """Run a tool until it is killed.

    Args:
        place: the function, for example ``shared.sample_journal:SampleJournal.add``.
        number: its call of this number is the one before which.
        tool: its name.
        arguments: of the tool.
    """
    command = [sys.executable, "-m", __spec__.name, place, str(number), tool, *arguments]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == -signal.SIGKILL, answer.stderr


def signal_at(place: str, number: int, which: int) -> None:
    """Have this process send itself a signal before a call of a function; see `killed_at`."""
    module, _, path = place.partition(":")
    owner, _, name = path.rpartition(".")
    holder: Any = importlib.import_module(module)
    if owner:
        holder = operator.attrgetter(owner)(holder)
    whole, calls = getattr(holder, name), itertools.count(1)

    @functools.wraps(whole)
    def function(*positional: Any, **named: Any) -> Any:
        if next(calls) == number:
            os.kill(os.getpid(), which)
        return whole(*positional, **named)

    setattr(holder, name, function)


if __name__ == "__main__":
    chosen, at, name, *words = sys.argv[1:]
    signal_at(chosen, int(at), signal.SIGKILL)
    importlib.import_module(f"{name}.cli").cli(words, prog_name=name)
