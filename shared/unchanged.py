"""Which of the commands of a pipeline have something to do, asked in one process::

    python -m shared.unchanged "runtime run --work w --backend onnx" "verifier verify --work w" ...

Each command is a word list as for a shell, and may name its tool by a path. They are gone through in order, by the
tools themselves, up to the first that would begin a stage, or that fails. What the others print is printed. Exit code
0: all are up to date; `LEFT` + n: the last n are not, or come after one that is not. To start Python with its packages
for each of them takes longer than all the answers.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from shared import terminal
from shared.stages import only_asking

#: Added to the number of commands that are left, to tell it from the exit codes of Python and of the tools.
LEFT = 100


def left(commands: Sequence[str]) -> int:
    """How many of ``commands``, counted from the end, are not known to be up to date; prints what the others print."""
    for index, command in enumerate(commands):
        printed = _answer(shlex.split(command))
        if printed is None:
            return len(commands) - index
        sys.stderr.write(printed[1])
        sys.stdout.write(printed[0])
        sys.stdout.flush()
    return 0


def tool(name: str) -> click.Group | None:
    """The command line that this installation calls ``name``; None where it is none of click's."""
    for script in importlib.metadata.entry_points(group="console_scripts", name=name):
        group = script.load()
        return group if isinstance(group, click.Group) else None
    return None


def _answer(words: Sequence[str]) -> tuple[str, str] | None:
    """What a command that has nothing to do prints, on both streams; None: it has, or can't be asked."""
    name, *arguments = Path(words[0]).name, *words[1:]
    group = tool(name)
    if group is None:
        return None
    output, errors = io.StringIO(), io.StringIO()
    streams = terminal.OutputStream(output, escape=True), terminal.OutputStream(errors, escape=False)
    try:
        with (
            contextlib.redirect_stdout(streams[0]),
            contextlib.redirect_stderr(streams[1]),
            only_asking(),
            group.make_context(name, list(arguments)) as context,
        ):
            group.invoke(context)
    except (Exception, SystemExit):  # noqa: BLE001  # whatever it is, the tool itself says it
        return None
    return output.getvalue(), errors.getvalue()


if __name__ == "__main__":
    count = left(sys.argv[1:])
    sys.exit(LEFT + count if count else 0)
