"""The base of the five command lines: the same options, the same errors, the same exit codes.

A tool's ``cli.py`` makes its group with `tool_group` and decorates its commands with the options here. Whatever a
command raises ends here: a `DeployError` becomes one line and its exit code, anything else is a bug and says so.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from shared import __version__
from shared.errors import DeployError, UsageError

Command = TypeVar("Command", bound=Callable[..., Any])

EXIT_BUG = 1
EXIT_INTERRUPTED = 130

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class ToolGroup(click.Group):
    """A click group that turns errors into one line and an exit code."""

    def main(self, args: Sequence[str] | None = None, **extra: Any) -> Any:  # type: ignore[override]
        """Run the command line ``args`` (default: the process's own) and exit."""
        arguments = list(sys.argv[1:] if args is None else args)
        debug = "--debug" in arguments
        try:
            result = super().main(args=arguments, standalone_mode=False, **extra)
        except click.exceptions.Exit as stop:
            sys.exit(stop.exit_code)
        except click.ClickException as error:
            error.show()
            sys.exit(UsageError.exit_code)
        except (KeyboardInterrupt, click.Abort):
            click.echo("interrupted; what was finished is kept, run the command again to go on", err=True)
            sys.exit(EXIT_INTERRUPTED)
        except BrokenPipeError:
            # The reader of our output (head, less) has gone; nothing is wrong.
            sys.stderr.close()
            sys.exit(0)
        except DeployError as error:
            if debug:
                raise
            click.echo(f"error: {error}", err=True)
            sys.exit(error.exit_code)
        except Exception as error:  # the last resort of a program: whatever comes here is a bug of ours
            if debug:
                raise
            click.echo(f"error: {type(error).__name__}: {error}. This is a bug; --debug shows where", err=True)
            sys.exit(EXIT_BUG)
        sys.exit(result if isinstance(result, int) else 0)


def _set_up_logging(level: str, log_file: Path | None) -> None:
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if log_file is not None:
        handlers.append(logging.FileHandler(log_file))
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S", handlers=handlers, force=True
    )
    # Other packages speak up only when something is wrong, unless the user asks for everything.
    if level != "DEBUG":
        for name in ("matplotlib", "numba", "torch", "onnx", "onnxscript", "mmengine", "PIL"):
            logging.getLogger(name).setLevel(logging.WARNING)


def tool_group(name: str, help_text: str) -> ToolGroup:
    """The click group of a tool, with ``--version``, ``--debug``, ``--log-level`` and ``--log-file``."""

    @click.group(name=name, cls=ToolGroup, help=help_text, context_settings={"help_option_names": ["-h", "--help"]})
    @click.version_option(__version__, prog_name=name)
    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @click.option(
        "--log-level",
        type=click.Choice(LOG_LEVELS, case_sensitive=False),
        default="INFO",
        show_default=True,
        help="What to log on standard error.",
    )
    @click.option("--log-file", type=click.Path(path_type=Path, dir_okay=False), help="Log to this file too.")
    def group(debug: bool, log_level: str, log_file: Path | None) -> None:
        _set_up_logging("DEBUG" if debug else log_level.upper(), log_file)

    assert isinstance(group, ToolGroup)
    return group


def workspace_option(command: Command) -> Command:
    """``--work``: the workspace folder, given to the command as ``work``."""
    return click.option(
        "--work",
        type=click.Path(path_type=Path, file_okay=False),
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
        type=click.Path(path_type=Path, dir_okay=False),
        required=True,
        help="Deploy config: YAML, or a deploy_config.py of AWML.",
    )(command)


def data_option(command: Command) -> Command:
    """``--data``: where the data set lies on this machine, as ``data_root``."""
    return click.option(
        "--data",
        "data_root",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="DATA_ROOT",
        help="Root folder of the data set, when it lies elsewhere than the config says (a mount).",
    )(command)


def device_option(command: Command) -> Command:
    """``--device``: cpu, cuda, cuda:N or an alias of the config, as ``device``."""
    return click.option(
        "--device", default="cpu", show_default=True, help="cpu, cuda, cuda:N, or an alias of the config's devices."
    )(command)


def force_option(command: Command) -> Command:
    """``--force``: run although everything is up to date, as ``force``."""
    return click.option("--force", is_flag=True, help="Run although the stage is up to date.")(command)
