"""The base of the five command lines: the same options, the same errors, the same exit codes.

A tool's ``cli.py`` makes its group with `tool_group` and decorates its commands with the options here. Every exception
that a command raises ends here: a `DeployError` becomes one line and its exit code, anything else is reported as a bug.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import math
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from shared import __version__, log_pipe, logs, terminal
from shared.answer import Answer
from shared.errors import DeployError, EnvironmentLacks, InputError, UsageError
from shared.interrupts import ending, prompt_interrupts
from shared.text import LONGEST_LINE, one_line

Command = TypeVar("Command", bound=Callable[..., Any])

EXIT_BUG = 1


# What a path that a user gives can be; whatever else the system refuses, it lacks.
_ERRORS_OF_INPUT = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.ENODEV),
    *(errno.EINVAL, errno.EEXIST, errno.ENOTEMPTY),
}


class Number(click.FloatRange):
    """A finite number within bounds."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number that ``value`` is; NaN and infinities are none."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


#: Types of options, with bounds that no use comes near: a slip of the keyboard gives a line instead of a full machine.
COUNT = click.IntRange(1, 100_000_000)
INDEX = click.IntRange(0, 100_000_000)
#: -1: all.
COUNT_OR_ALL = click.IntRange(-1, 100_000_000)
THREADS = click.IntRange(1, 1024)
SEED = click.IntRange(0, 2**32 - 1)
SECONDS = Number(0, 7 * 24 * 3600.0)
FILE, FOLDER = click.Path(path_type=Path, dir_okay=False), click.Path(path_type=Path, file_okay=False)
PLACE = click.Path(path_type=Path)
EXISTING_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
EXISTING_FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)


class ToolGroup(click.Group):
    """A click group that turns errors into one line and an exit code."""

    def main(self, args: Sequence[str] | None = None, **extra: Any) -> Any:  # type: ignore[override]
        """Run the command line ``args`` (default: the process's own) and exit."""
        arguments = list(sys.argv[1:] if args is None else args)
        started = time.monotonic()
        terminal.hold_standard_descriptors()
        tool = str(self.name)
        say = _Errors(tool, as_json=_log_format(arguments) == logs.JSON, debug="--debug" in arguments)
        with contextlib.ExitStack() as streams:
            if say.as_json:
                streams.enter_context(log_pipe.only_lines(tool))
            output = terminal.OutputStream(sys.stdout, escape=True)
            errors = terminal.OutputStream(sys.stderr, escape=False)
            streams.enter_context(contextlib.redirect_stdout(output))
            streams.enter_context(contextlib.redirect_stderr(errors))
            with prompt_interrupts():
                code = self._run(arguments, say, extra)
                output.flush()
                errors.flush()
                code = _with_lost_output(code, output, say)
            if say.as_json:
                numbers = {"exit_code": code, "seconds": round(time.monotonic() - started, 3)}
                message = f"{tool} ends with exit code {code}"
                click.echo(logs.line(tool, "INFO", "command_done", message, numbers=numbers), err=True)
            sys.exit(code)

    def _run(self, arguments: list[str], say: _Errors, extra: dict[str, Any]) -> int:
        """Run a command line; returns its exit code."""
        try:
            _check_text(arguments)
            result = super().main(args=arguments, standalone_mode=False, **extra)
        except click.exceptions.Exit as stop:
            return stop.exit_code
        except click.ClickException as error:
            say.usage(error)
            return UsageError.exit_code
        except (KeyboardInterrupt, click.Abort) as error:
            words, code = ending(error)
            say.error(error, [words], code, prefix="")
            return code
        except (Exception, SystemExit) as error:  # noqa: BLE001  # the last resort of a program
            lines, code = _explained(error)
            say.error(error, lines, code)
            return code
        return result if isinstance(result, int) else 0


def _log_format(arguments: Sequence[str]) -> str:
    """The format that a command line asks for: errors of the command line itself have it, too."""
    found = os.environ.get(logs.VARIABLE, logs.TEXT)
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        option, _, value = word.partition("=")
        if option == "--log-format":
            found = value or following
    return found.lower()


class _Errors:
    """Says on the standard error what ended a command, in the format of the log."""

    def __init__(self, tool: str, *, as_json: bool, debug: bool) -> None:
        self._tool = tool
        self.as_json = as_json
        self._debug = debug

    def error(self, error: BaseException, lines: Sequence[str], code: int, *, prefix: str = "error: ") -> None:
        """An error as ``lines``, and the traceback in debugging."""
        text = "\n".join(lines)
        stopped = isinstance(error, KeyboardInterrupt | click.Abort)
        debug = self._debug and error.__traceback__ is not None and not stopped
        if self.as_json:
            self._object(error, text, logs.error_object(error, text, code, debug=debug))
            return
        if debug:
            traceback.print_exception(error)
        click.echo(prefix + text, err=True)

    def usage(self, error: click.ClickException) -> None:
        """What click refused."""
        message = one_line(error.format_message())
        context = error.ctx if isinstance(error, click.UsageError) else None
        hint = "" if context is None else f"Try '{context.command_path} --help' for help."
        if self.as_json:
            self._object(error, message, logs.error_object(error, message, UsageError.exit_code, hint))
            return
        if context is not None:
            click.echo(f"{context.get_usage()}\n{hint}\n", err=True)
        click.echo(f"Error: {message}", err=True)

    def _object(self, error: BaseException, message: str, described: dict[str, Any]) -> None:
        stage, sample = (error.stage, error.sample) if isinstance(error, DeployError) else (None, None)
        click.echo(
            logs.line(self._tool, "ERROR", "error", message, stage=stage, sample=sample, error=described), err=True
        )


def _check_text(arguments: Sequence[str]) -> None:
    """Refuse bytes that are not UTF-8: they would end up in a manifest, which is."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise click.UsageError(f"{argument!r} is not text in UTF-8.") from error


def _explained(error: BaseException) -> tuple[list[str], int]:
    """What to say of an error that ended a command, and its exit code."""
    if isinstance(error, DeployError):
        return error.lines(), error.exit_code
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return [one_line(f"{where}{error.strerror}")], (
            InputError if error.errno in _ERRORS_OF_INPUT else EnvironmentLacks
        ).exit_code
    if isinstance(error, RecursionError):
        return [one_line(f"the input is nested too deeply ({error})")], InputError.exit_code
    if isinstance(error, MemoryError):
        detail = f" ({error})" if str(error) else ""
        return [one_line(f"there is not enough memory for this{detail}")], EnvironmentLacks.exit_code
    if isinstance(error, SystemExit):
        # Ours end by an error or by returning; this is a training config or a plug-in.
        return [f"code that was loaded ended the program (exit code {error.code}); nothing is known to be finished"], (
            InputError.exit_code
        )
    # The last resort of a program: whatever comes here is a bug of ours.
    return [
        one_line(f"{type(error).__name__}: {error}", LONGEST_LINE - 50) + ". This is a bug; --debug shows where"
    ], EXIT_BUG


def _with_lost_output(code: int, output: terminal.OutputStream, say: _Errors) -> int:
    """The exit code, when the standard output or the log file could not be written."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, terminal.LogFile) and handler.failure is not None:
            lost = EnvironmentLacks(f"the log file {handler.path} is not whole ({handler.failure})")
            say.error(lost, lost.lines(), lost.exit_code)
            code = code or lost.exit_code
    if output.failure is not None:
        if output.failure.errno != errno.EBADF:
            terminal.discard_output(output.fileno())
        # A reader that has gone (head, less, true) has read what it wanted.
        if output.failure.errno != errno.EPIPE:
            rest = "" if code else "; the work itself is done"
            lost = EnvironmentLacks(f"the standard output can't be written ({output.failure.strerror}){rest}")
            say.error(lost, lost.lines(), lost.exit_code)
            code = code or lost.exit_code
    return code


def _set_up_logging(tool: str, level: str, log_file: Path | None, log_format: str) -> None:
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if log_file is not None:
        handlers.append(terminal.LogFile(log_file))
    for handler in handlers:
        if log_format == logs.JSON:
            handler.setFormatter(logs.JsonFormatter(tool))
        else:
            handler.setFormatter(terminal.LineFormatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
            handler.addFilter(logs.in_text)
    logging.basicConfig(level=level, handlers=handlers, force=True)
    logging.captureWarnings(log_format == logs.JSON)
    # Other packages speak up only when something is wrong, unless the user asks for everything: what they will change
    # some day is nothing that a user of ours can act on.
    if level != "DEBUG":
        warnings.simplefilter("ignore", FutureWarning)
        # mmdet3d copies tensors in a way that PyTorch advises against, at every call.
        warnings.filterwarnings("ignore", "To copy construct from a tensor", UserWarning)
        for name in ("matplotlib", "numba", "torch", "onnx", "onnxscript", "mmengine", "PIL"):
            logging.getLogger(name).setLevel(logging.WARNING)


def tool_group(name: str, help_text: str) -> ToolGroup:
    """The click group of a tool, with ``--version``, ``--debug`` and the options of the log."""

    @click.group(name=name, cls=ToolGroup, help=help_text, context_settings={"help_option_names": ["-h", "--help"]})
    @click.version_option(__version__, prog_name=name)
    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @click.option(
        "--log-level",
        type=click.Choice(logs.LEVELS, case_sensitive=False),
        default="INFO",
        show_default=True,
        help="What to log on standard error.",
    )
    @click.option("--log-file", type=FILE, help="Also log to this file.")
    @click.option(
        "--log-format",
        type=click.Choice(logs.FORMATS, case_sensitive=False),
        default=logs.TEXT,
        show_default=True,
        envvar=logs.VARIABLE,
        show_envvar=True,
        help="json: an object a line (docs/logs.md).",
    )
    def group(debug: bool, log_level: str, log_file: Path | None, log_format: str) -> None:
        _set_up_logging(name, "DEBUG" if debug else log_level.upper(), log_file, log_format)

    assert isinstance(group, ToolGroup)
    return group


def workspace_option(command: Command) -> Command:
    """``--work``: the workspace folder, given to the command as ``work``."""
    return click.option(
        "--work",
        type=FOLDER,
        required=True,
        envvar="WORK",
        help="The workspace: the folder that holds manifest.json.",
    )(command)


def config_option(command: Command) -> Command:
    """``--config`` and ``--set``: the deploy config and overrides, as ``config`` and ``overrides``."""
    command = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override a key of the config, for example --set export.mode=onnx. Repeatable.",
    )(command)
    return click.option(
        "--config",
        type=FILE,
        required=True,
        help="Deploy config: YAML, an AWML deploy_config.py, or the name of one that a package brings.",
    )(command)


def data_option(command: Command) -> Command:
    """``--data``: where the data set is on this machine, as ``data_root``."""
    return click.option(
        "--data",
        "data_root",
        type=FOLDER,
        envvar="DATA_ROOT",
        help="Root folder of the data set, if it is not where the config says (for example a mount).",
    )(command)


def device_option(command: Command) -> Command:
    """``--device``: cpu, cuda, cuda:N or an alias of the config, as ``device``."""
    return click.option(
        "--device", default="cpu", show_default=True, help="cpu, cuda, cuda:N, or an alias of the config's devices."
    )(command)


def trust_option(command: Command) -> Command:
    """``--trust``: before the command, what in the workspace ``work`` runs as code is trusted here."""

    @functools.wraps(command)
    def trusting(*arguments: Any, trust: bool, **options: Any) -> Any:
        if trust:
            from shared import trust as trusted

            click.echo(trusted.trust(options["work"]), err=True)
        return command(*arguments, **options)

    option = click.option(
        "--trust", is_flag=True, help="Trust who made this workspace: what is in it may run here from now on."
    )
    return cast(Command, option(trusting))


def json_option(command: Command) -> Command:
    """``--json``: the command returns an `Answer` (or an error has one), which is printed as text or as JSON."""

    def show(answer: Answer, as_json: bool) -> None:
        if as_json:
            click.echo(answer.json())
        elif answer:
            click.echo(answer)

    @functools.wraps(command)
    def answering(*arguments: Any, as_json: bool, **options: Any) -> None:
        try:
            answer = command(*arguments, **options)
        except DeployError as error:
            if error.answer is not None:
                show(error.answer, as_json)
            raise
        show(answer, as_json)

    option = click.option("--json", "as_json", is_flag=True, help="The same as JSON, unrounded (docs/logs.md).")
    return cast(Command, option(answering))


def cluster_option(command: Command) -> Command:
    """``--cluster``: where the work is spread to, as ``cluster``; None: this process alone."""
    return click.option(
        "--cluster",
        metavar="WHERE",
        envvar="RAY_ADDRESS",
        help="Spread the work over a Ray cluster: local (all GPUs or processors of this machine), local:N (N workers "
        "here), auto (the cluster that this machine is a node of), or HOST:PORT of its head.",
    )(command)


def junit_option(command: Command) -> Command:
    """``--junit``: a file for what was checked, as ``junit``."""
    return click.option(
        "--junit", type=FILE, help="Also write every check and its verdict as JUnit XML, which CI services show."
    )(command)


def force_option(command: Command) -> Command:
    """``--force``: run even if the stage is up to date, as ``force``."""
    return click.option("--force", is_flag=True, help="Run even if the stage is up to date.")(command)
