"""The other tools' commands, started as a user would start them: this tool imports none of them.

They run in processes of their own, by this Python: a TensorRT that crashes over one choice costs that choice alone.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from shared.errors import BuildError, DeployError, EnvironmentLacks, InferenceError, InputError, UsageError
from shared.interrupts import INTERRUPTED, TERMINATED, Terminated
from shared.logs import TEXT

_TOGETHER = "it needs runtime and evaluator beside trt_builder, as `make setup` installs them; an image has one tool"
# What is wrong with the machine, the data or the command line is so for every choice.
_FOR_ALL = {kind.exit_code: kind for kind in (UsageError, InputError, EnvironmentLacks)}


def call(tool: str, *arguments: str) -> str:
    """Run ``python -m <tool> <arguments>`` to its end; returns what it printed.

    Raises:
        BuildError: `trt_builder` failed over what it was given.
        InferenceError: another tool did, or was killed.
        UsageError, InputError, EnvironmentLacks: as the tool says.
        KeyboardInterrupt: the user stopped it.
    """
    command = [sys.executable, "-m", tool, "--log-level", "warning", "--log-format", TEXT, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode == 0:
        return ended.stdout.rstrip()
    if ended.returncode == INTERRUPTED.code:
        raise KeyboardInterrupt
    if ended.returncode == TERMINATED.code:
        raise Terminated
    raise _error(tool, arguments, ended.returncode, ended.stderr)


def _error(tool: str, arguments: Sequence[str], code: int, text: str) -> DeployError:
    lines = [line for line in text.splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if line.lower().startswith("error: ")), lines[-1] if lines else "")
    message = said.partition(": ")[2] or said or "it said nothing"
    if code < 0:
        message = f"killed by signal {-code}; its last words: {message}"
    where = f"{tool} {arguments[0]}"
    kind = _FOR_ALL.get(code, BuildError if tool == "trt_builder" else InferenceError)
    return kind(message, where=where, hint=_TOGETHER if kind is EnvironmentLacks else None)
