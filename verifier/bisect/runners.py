"""Runners: what runs a model on inputs. Another backend is another command, see `CommandRunner`."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from shared.errors import EnvironmentLacks, InferenceError, UsageError
from shared.lazy import lazy_import
from shared.logs import TEXT, VARIABLE
from shared.onnx_windows import Arrays

onnx = lazy_import("onnx")
ort = lazy_import("onnxruntime", install="make setup")

_LOG_FATAL = 4
_NEEDED = ("{model}", "{inputs}", "{outputs}")
# Lines of a failed command that are shown.
_LINES_SHOWN = 3
# How our tools end when not the graph is at fault but the command line, or what the machine lacks.
_NOT_THE_GRAPH = (UsageError.exit_code, EnvironmentLacks.exit_code)


class Runner(Protocol):
    """Runs models."""

    @property
    def name(self) -> str:
        """Who it is, for the record; another version is another name."""

    def run(self, model: Any, samples: Sequence[Arrays]) -> list[dict[str, npt.NDArray[Any]]]:
        """Run a model.

        Args:
            model: ``onnx.ModelProto`` whose shapes are those of the samples.
            samples: inputs by name.

        Returns:
            Outputs by name, per sample.

        Raises:
            InferenceError: it can't be loaded or run.
        """


class OnnxRunner:
    """ONNX Runtime on the CPU."""

    def __init__(self, *, optimize: bool) -> None:
        self._optimize = optimize

    @property
    def name(self) -> str:
        """With the version, and whether the graph is optimized."""
        return f"onnxruntime {ort.get_version_string()}, {'optimized' if self._optimize else 'node by node'}"

    def run(self, model: Any, samples: Sequence[Arrays]) -> list[dict[str, npt.NDArray[Any]]]:
        """See `Runner.run`."""
        options = ort.SessionOptions()
        levels = ort.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if self._optimize else levels.ORT_DISABLE_ALL
        options.log_severity_level = _LOG_FATAL
        names = [output.name for output in model.graph.output]
        try:
            session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            return [dict(zip(names, session.run(names, dict(sample)), strict=True)) for sample in samples]
        # Each of ONNX Runtime's status codes is an exception class of its own, without a common base.
        except Exception as error:
            raise InferenceError(
                f"ONNX Runtime failed: {str(error).splitlines()[0]}", where=f"window with {', '.join(names[:3])}"
            ) from error


class CommandRunner:
    """A command that runs a model from files.

    The command line contains ``{model}`` (an ONNX file), ``{inputs}`` (an .npz of arrays by input name) and
    ``{outputs}`` (the .npz to write, arrays by output name). It is started once a sample and has to end with 0. Ending
    with 2 or 4 says that the command is wrong or something is missing here, which stops the search; anything else, that
    it can't run this window.
    """

    def __init__(self, command: str) -> None:
        """Take a command line.

        Args:
            command: with the placeholders.

        Raises:
            UsageError: a placeholder is missing.
        """
        missing = [mark for mark in _NEEDED if mark not in command]
        if missing:
            raise UsageError(f"has no {missing[0]}", where="--runner-command", hint=f"it needs {', '.join(_NEEDED)}")
        self._command = command

    @property
    def name(self) -> str:
        """The command line."""
        return self._command

    def run(self, model: Any, samples: Sequence[Arrays]) -> list[dict[str, npt.NDArray[Any]]]:
        """See `Runner.run`."""
        with tempfile.TemporaryDirectory(prefix="bisect-") as name:
            folder = Path(name)
            files = {"model": folder / "window.onnx", "inputs": folder / "in.npz", "outputs": folder / "out.npz"}
            onnx.save(model, str(files["model"]))
            return [self._run_sample(model, sample, files) for sample in samples]

    def _run_sample(self, model: Any, sample: Arrays, files: dict[str, Path]) -> dict[str, npt.NDArray[Any]]:
        files["outputs"].unlink(missing_ok=True)
        with files["inputs"].open("wb") as file:
            np.savez(file, **cast("dict[str, Any]", dict(sample)))
        words = [word.format(**{key: str(path) for key, path in files.items()}) for word in shlex.split(self._command)]
        try:
            # What it says is shown within a line of ours.
            environment = {**os.environ, VARIABLE: TEXT}
            done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
        except OSError as error:
            raise EnvironmentLacks(f"can't be started ({error.strerror})", where=words[0]) from error
        if done.returncode in _NOT_THE_GRAPH:
            raise EnvironmentLacks(_last_words(done.stderr), where=shlex.join(words))
        if done.returncode or not files["outputs"].is_file():
            raise InferenceError(f"ended with {done.returncode}: {_last_words(done.stderr)}", where=shlex.join(words))
        with np.load(files["outputs"], allow_pickle=False) as archive:
            missing = [output.name for output in model.graph.output if output.name not in archive.files]
            if missing:
                raise InferenceError(f"did not write output '{missing[0]}'", where=shlex.join(words))
            return {output.name: archive[output.name] for output in model.graph.output}


def _last_words(stderr: str) -> str:
    return " / ".join(stderr.strip().splitlines()[-_LINES_SHOWN:]) or "no message"
