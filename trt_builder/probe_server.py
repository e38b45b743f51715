"""`trt_builder probe --serve`: one process for many graphs, so that TensorRT starts once.

A question is a line of JSON, ``{"model": ..., "inputs": ..., "outputs": ...}``, paths of files as `probe` takes them;
the answer is a line ``{"exit_code": ..., "message": ...}`` with what `probe` would have ended with. What TensorRT can't
survive ends the process, and whoever asks sees its answers end.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TextIO

from shared.errors import DeployError, InputError
from shared.json_reader import parse_json

#: Runs a graph: its file, that of its inputs, that of its outputs.
Run = Callable[[Path, Path, Path], None]
_KEYS = ("model", "inputs", "outputs")


def serve_standard_streams(run: Run) -> None:
    """Answer what comes in at the standard input, until it ends; what else is printed goes to the standard error."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as answers:
        sys.stdout.flush()
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        serve(run, sys.stdin, answers)


def serve(run: Run, questions: Iterable[str], answers: TextIO) -> None:
    """Answer questions in turn.

    Args:
        run: runs a graph; raises `DeployError`.
        questions: a line each.
        answers: where a line each goes.
    """
    for line in questions:
        exit_code, message = 0, ""
        try:
            run(*_files(line))
        except DeployError as error:
            exit_code, message = error.exit_code, str(error)
        answers.write(json.dumps({"exit_code": exit_code, "message": message}) + "\n")
        answers.flush()


def _files(line: str) -> tuple[Path, Path, Path]:
    question = parse_json(line, "standard input")
    if not isinstance(question, dict) or not all(isinstance(question.get(key), str) for key in _KEYS):
        hint = f"a line of JSON with {', '.join(_KEYS)}"
        raise InputError(f"no question: {line.strip()[:80]!r}", where="standard input", hint=hint)
    model, inputs, outputs = (Path(question[key]) for key in _KEYS)
    return model, inputs, outputs
