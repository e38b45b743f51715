"""What runs in the processes of a cluster: on the nodes, away from the command that the user typed."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared import provenance
from shared.errors import DeployError, EnvironmentLacks
from shared.files import explain_os_errors
from shared.logs import in_text
from shared.work_path import WorkPath

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Attempt:
    """What a call in another process gave.

    Attributes:
        value: what it returned; None where there is an error.
        error: what it raised.
        warnings: what it logged, from WARNING up.
    """

    value: Any
    error: DeployError | None
    warnings: list[str]


@dataclass(frozen=True)
class Site:
    """What every node must have in common with the command.

    Attributes:
        module: the tool's package.
        code: digest of its sources and the shared ones.
        marks: folder to the name of a file that the command put there; who sees it shares the folder.
        cwd: where relative paths start.
        check: what else must be there; raises a `DeployError` about what is not.
    """

    module: str
    code: str
    marks: dict[Path, str]
    cwd: Path
    check: Callable[[], None] | None


@dataclass(frozen=True)
class Setting:
    """What a worker has of its node.

    Attributes:
        place: its number among the workers there.
        places: how many there can be; they share the processors.
        cwd: where relative paths start.
    """

    place: int
    places: int
    cwd: Path


class Worker:
    """A process that holds something loaded, and does one task after another."""

    def __init__(self) -> None:
        self._work: Callable[[Any], Any] | None = None

    def open(self, make: Callable[[], Callable[[Any], Any]], setting: Setting) -> Attempt:
        """Load what the tasks need; ``make`` returns what is called with every task."""

        def load() -> None:
            _take_place(setting)
            self._work = make()

        return attempt(load)

    def do(self, task: Any) -> Attempt:
        """Do a task."""
        assert self._work is not None, "a worker is opened before it gets a task"
        return attempt(lambda: self._work(task))  # type: ignore[misc]  # narrowed above


def _take_place(setting: Setting) -> None:
    """Keep to a share of the processors: what counts them, to start as many threads, counts those."""
    processors = sorted(os.sched_getaffinity(0))
    share = max(1, len(processors) // setting.places)
    first = setting.place * share % len(processors)
    os.sched_setaffinity(0, processors[first : first + share])
    os.environ.update(dict.fromkeys(_THREADS, str(share)))
    _change_folder(setting.cwd)


def _change_folder(cwd: Path) -> None:
    # What is relative and can't be found without it is reported by its name.
    with contextlib.suppress(OSError):
        os.chdir(cwd)


def inspect(site: Site) -> Attempt:
    """See whether this node is fit for a job; the error of the answer says what it lacks."""
    return attempt(lambda: _inspect(site))


def _inspect(site: Site) -> None:
    _change_folder(site.cwd)
    if provenance.code_digest("shared", site.module) != site.code:
        raise EnvironmentLacks(
            "another version of this software is installed", hint="install the same on all nodes and here"
        )
    for folder, name in site.marks.items():
        if not WorkPath(folder, name).is_file():
            raise EnvironmentLacks(
                f"{folder} is not the folder of that name where the command runs",
                hint="mount the shared volume at the same place on all nodes",
            )
    if site.check is not None:
        site.check()


def attempt(function: Callable[[], Any]) -> Attempt:
    """Call ``function``; whatever it raises becomes an error that can be sent, and shown in a line."""
    listener = _Listener()
    root = logging.getLogger()
    root.addHandler(listener)
    try:
        with explain_os_errors(Path(platform.node())):
            return Attempt(function(), None, listener.lines)
    except DeployError as error:
        return Attempt(None, error, listener.lines)
    except Exception as error:  # noqa: BLE001  # the last resort of a process: the command reports it
        return Attempt(None, DeployError(f"{type(error).__name__}: {error}. This is a bug"), listener.lines)
    finally:
        root.removeHandler(listener)


class _Listener(logging.Handler):
    """Keeps what is logged from WARNING up."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.addFilter(in_text)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
