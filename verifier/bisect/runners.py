"""Runners: what runs a model on inputs. Another backend is another command, see `runner_of`."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, cast

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
# For a command that stays, to end when nobody asks any more.
_PATIENCE_SECONDS = 1.0
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


def runner_of(command: str) -> Runner:
    """The runner that a command line is: with placeholders `CommandRunner`, without any `ServerRunner`.

    Raises:
        UsageError: some of the placeholders are missing.
    """
    missing = [mark for mark in _NEEDED if mark not in command]
    if len(missing) == len(_NEEDED):
        return ServerRunner(command)
    if missing:
        raise UsageError(f"has no {missing[0]}", where="--runner-command", hint=f"it needs {', '.join(_NEEDED)}")
    return CommandRunner(command)


class Ended(NamedTuple):
    """How a command says that it ran a model.

    Attributes:
        exit_code: 0: it did.
        said: its last words.
        where: who says it.
    """

    exit_code: int
    said: str
    where: str


class _FileRunner(ABC):
    """A runner of another program, which reads and writes files."""

    def __init__(self, command: str) -> None:
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
        ended = self._ask({name: str(path) for name, path in files.items()})
        if ended.exit_code in _NOT_THE_GRAPH:
            raise EnvironmentLacks(ended.said, where=ended.where)
        if ended.exit_code or not files["outputs"].is_file():
            raise InferenceError(f"ended with {ended.exit_code}: {ended.said}", where=ended.where)
        with np.load(files["outputs"], allow_pickle=False) as archive:
            missing = [output.name for output in model.graph.output if output.name not in archive.files]
            if missing:
                raise InferenceError(f"did not write output '{missing[0]}'", where=ended.where)
            return {output.name: archive[output.name] for output in model.graph.output}

    @abstractmethod
    def _ask(self, files: dict[str, str]) -> Ended:
        """Have a model run: ``model`` and ``inputs`` are there, ``outputs`` is to be written."""


class CommandRunner(_FileRunner):
    """A command that runs a model from files, started once a sample.

    The command line contains ``{model}`` (an ONNX file), ``{inputs}`` (an .npz of arrays by input name) and
    ``{outputs}`` (the .npz to write, arrays by output name). It has to end with 0. Ending with 2 or 4 says that the
    command is wrong or something is missing here, which stops the search; anything else, that it can't run this window.
    """

    def _ask(self, files: dict[str, str]) -> Ended:
        words = [word.format(**files) for word in shlex.split(self._command)]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False, env=_environment())
        except OSError as error:
            raise _not_started(words, error) from error
        return Ended(done.returncode, _last_words(done.stderr), shlex.join(words))


class ServerRunner(_FileRunner):
    """A command that stays, and is asked once a sample: TensorRT 8.6 takes ten seconds to start.

    It reads lines of JSON, ``{"model": ..., "inputs": ..., "outputs": ...}``, paths as `CommandRunner` has them, and
    answers each with a line ``{"exit_code": ..., "message": ...}``; what the exit code means, see there. When its input
    ends, it does too. One that ends before that could not run the window, and is started again for the next.
    """

    def __init__(self, command: str) -> None:
        super().__init__(command)
        self._process: _Server | None = None

    def __getstate__(self) -> dict[str, Any]:
        # For another process, which starts its own.
        return {"_command": self._command, "_process": None}

    def _ask(self, files: dict[str, str]) -> Ended:
        if self._process is None:
            self._process = _Server(shlex.split(self._command))
        ended = self._process.ask(files)
        if self._process.has_ended():
            self._process = None
        return ended


class _Server:
    """A command that was started; it ends when this goes."""

    def __init__(self, words: list[str]) -> None:
        self._words = words
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (it is open as long as the process lives)
        try:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                text=True,
                env=_environment(),
            )
        except OSError as error:
            raise _not_started(words, error) from error
        weakref.finalize(self, _end, self._process)

    def has_ended(self) -> bool:
        """Whether it can be asked no more."""
        return self._process.poll() is not None

    def ask(self, files: dict[str, str]) -> Ended:
        """See `_FileRunner`.

        Raises:
            EnvironmentLacks: it does not answer as such a command does.
        """
        where, (questions, answers) = shlex.join(self._words), self._pipes()
        # Where it has ended, the end of its answers says so.
        with contextlib.suppress(BrokenPipeError):
            questions.write(json.dumps(files) + "\n")
            questions.flush()
        line = answers.readline()
        if not line:
            code = self._process.wait()
            self._stderr.seek(0)
            # One that ends well has not answered either.
            said = _last_words(self._stderr.read().decode(errors="replace"))
            return Ended(code or InferenceError.exit_code, said, where)
        try:
            answer = json.loads(line)
            return Ended(int(answer["exit_code"]), str(answer["message"]), where)
        except (ValueError, TypeError, KeyError):
            hint = f"a command without {', '.join(_NEEDED)} is asked in lines of JSON: trt_builder probe --serve"
            raise EnvironmentLacks(f"answered {line.strip()[:80]!r}", where=where, hint=hint) from None

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process.stdin is not None and self._process.stdout is not None
        return self._process.stdin, self._process.stdout


def _end(process: subprocess.Popen[str]) -> None:
    """Let it end by itself, and soon: nobody waits for its answer any more."""
    assert process.stdin is not None and process.stdout is not None
    # It may have ended first.
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


def _environment() -> dict[str, str]:
    """What it says is shown within a line of ours."""
    return {**os.environ, VARIABLE: TEXT}


def _not_started(words: Sequence[str], error: OSError) -> EnvironmentLacks:
    return EnvironmentLacks(f"can't be started ({error.strerror})", where=words[0])


def _last_words(stderr: str) -> str:
    return " / ".join(stderr.strip().splitlines()[-_LINES_SHOWN:]) or "no message"
