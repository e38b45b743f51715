"""A stage: what a tool does to a workspace, with its fingerprint, its lock, and its commit.

A stage is up to date when its key (config part, hashes of inputs, versions, our own code) is that of the last run that
finished, and everything it made is still there, unchanged.

What a stage makes is written beside what is there: files under temporary names (`StageRun.artifact`), those of a run,
which goes on after a kill, in a folder of the attempt (`StageRun.folder`). All of it takes its place when the stage
ends well, with one write of the manifest (`shared.manifest`). Until then the old result is whole and ``done``, and an
attempt that fails is only noted beside it. So a disk holds both for a while: the old result and the new one.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from shared import __version__, logs, provenance, trust
from shared.errors import DeployError, ManifestError
from shared.files import explain_os_errors, inside, sha256_of_file, sha256_of_json
from shared.locks import LOCKS, Lock
from shared.manifest import (
    MANIFEST_NAME,
    Artifact,
    Attempt,
    AttemptStatus,
    Manifest,
    Stage,
    StageStatus,
    Switch,
    clean_up,
    read_manifest,
    switch_of,
    update_manifest,
)
from shared.spec import ModelSpec
from shared.temporaries import temporary
from shared.work_path import WorkPath

_log = logging.getLogger("stage")

_ATTEMPT = ".attempt-"
#: Between the name of a run and a fingerprint, in the name of the folder of its pieces.
PIECES = ".pieces-"
_ASKING: ContextVar[bool] = ContextVar("asking", default=False)
SourceT = TypeVar("SourceT")


class Outdated(Exception):
    """Something is to be done in a stage, and `only_asking` forbids it."""


@contextlib.contextmanager
def only_asking() -> Iterator[None]:
    """Inside, no stage begins or records that it is skipped: whoever is about to raises `Outdated`."""
    token = _ASKING.set(True)
    try:
        yield
    finally:
        _ASKING.reset(token)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def stage_lock(root: Path, name: str) -> Lock:
    """The lock that whoever runs or replaces stage ``name`` of the workspace at ``root`` holds."""
    return Lock(WorkPath(root, f"{LOCKS}/{name.replace(':', '-').replace('/', '-')}.lock"))


@contextlib.contextmanager
def hold_stages(root: Path, names: Sequence[str]) -> Iterator[None]:
    """Hold the locks of stages whose artifacts are replaced or kept.

    Raises:
        ManifestError: one of them is running here.
    """
    with contextlib.ExitStack() as held:
        for name in names:
            lock = stage_lock(root, name)
            with explain_os_errors(root):
                if not lock.acquire(wait=False):
                    raise ManifestError(
                        f"stage '{name}' is running here", where=str(root), hint="try again when it has ended"
                    )
            held.callback(lock.release)
        yield


@contextlib.contextmanager
def staged_files(
    root: Path, sources: Mapping[str, SourceT], place: Callable[[SourceT, WorkPath], None]
) -> Iterator[dict[str, WorkPath]]:
    """``sources`` under temporary names beside the paths under ``root`` that they are to take, by path.

    What the manifest does not say is to be switched in is removed after the block.

    Args:
        root: the workspace.
        sources: path under ``root`` to the file that is to be there.
        place: puts a source to its temporary path, and flushes it.

    Raises:
        ManifestError: a path leaves ``root``.
        EnvironmentLacks: the disk is full or read-only.
    """
    staged: dict[str, WorkPath] = {}
    temporaries = contextlib.ExitStack()
    try:
        for relative, source in sources.items():
            final = WorkPath(root, relative)
            with explain_os_errors(final):
                final.parent.make_folder()
                staged[relative] = temporaries.enter_context(temporary(final))
                place(source, staged[relative])
        for folder in {path.parent for path in staged.values()}:
            folder.flush()
        yield staged
    finally:
        remove_unless_switched(root, temporaries)


def remove_unless_switched(root: Path, temporaries: contextlib.ExitStack) -> None:
    """Close ``temporaries``, after a commit that needs them still and was interrupted has been ended."""
    # Where it can't be ended now they stay, for the next reader of the manifest.
    with contextlib.suppress(DeployError, OSError):
        read_manifest(root / MANIFEST_NAME)
        temporaries.close()


def attempt_folders(root: Path, relative: str) -> list[WorkPath]:
    """The folders of attempts that are to replace the folder ``relative`` of a workspace, and did not end yet."""
    final = WorkPath(root, relative)
    return [final.parent / name for name in final.parent.names() if name.startswith(f".{final.name}{_ATTEMPT}")]


def pieces_folders(root: Path, relative: str) -> list[WorkPath]:
    """The folders with pieces of runs (`shared.pieces`) that are to become the folder ``relative`` of a workspace."""
    final = WorkPath(root, relative)
    return [final.parent / name for name in final.parent.names() if name.startswith(f".{final.name}{PIECES}")]


class StageRun:
    """One run of a stage. Use as a context manager, after asking `up_to_date`."""

    def __init__(self, root: Path, name: str, tool: str, key: dict[str, Any], done: Stage | None = None) -> None:
        self.root = root
        self.name = name
        self._tool = tool
        self._done = done
        self._key = key if done else {**key, "code": provenance.code_digest("shared", tool)}
        self.fingerprint = sha256_of_json(self._key)
        self._started = _now()
        self._lock = stage_lock(root, name)
        self._temporaries = contextlib.ExitStack()
        self._pending: dict[str, tuple[WorkPath, str]] = {}
        self._folders: dict[str, WorkPath] = {}
        self._in_folders: dict[str, tuple[WorkPath, str]] = {}
        self._runs: list[str] = []
        self._results: dict[str, dict[str, Any]] = {}
        self._spec: ModelSpec | None = None
        self._config: dict[str, Any] | None = None
        self._about = contextlib.ExitStack()
        self._clock = 0.0
        self._made = 0, 0

    @staticmethod
    def of(root: Path, name: str, done: Stage) -> StageRun:
        """A stage whose work was done by other processes, and is brought together by this one.

        Args:
            root: the workspace.
            name: of the stage.
            done: what is recorded of it when it ends well; its outputs and results are those that are added.
        """
        return StageRun(root, name, done.tool, done.key, done)

    # -- before -----------------------------------------------------------------------------------------------------

    def up_to_date(self, *, say: bool = True) -> bool:
        """Whether the last run had the same key, finished, and all that it made is there and intact; says so then."""
        manifest = read_manifest(self.root / MANIFEST_NAME)
        last = manifest.stages.get(self.name)
        if last is None or last.status != "done" or last.fingerprint != self.fingerprint:
            return False
        for relative in last.outputs:
            record = manifest.artifacts.get(relative)
            if record is None or not record.describes(inside(self.root, relative)):
                return False
        for result in last.results:
            kind, _, name = result.partition("/")
            if name not in manifest.results.get(kind, {}):
                return False
        if say:
            _log.info("%s: up to date", self.name, extra=logs.event("up_to_date", stage=self.name))
        return True

    def changes(self) -> list[str]:
        """Why the stage would run: the differences between the last key and this one, a line each."""
        last = read_manifest(self.root / MANIFEST_NAME).stages.get(self.name)
        if last is None:
            return ["it never ran"]
        if last.status != "done":
            return [f"the last run is '{last.status}'"]
        return differences(last.key, self._key)

    def record(self, status: StageStatus = "done") -> Stage:
        """What the manifest would say of this run of the stage, were it to end now, but for what it made."""
        return self._stage(status, None, [], [])

    # -- during -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the stage's lock, once no other process runs it: what that one made may be what is wanted, so ask
        `up_to_date` inside, before the stage begins.

        Raises:
            ManifestError: the lock's file is a link or no file.
            EnvironmentLacks: the disk is full or read-only.
        """
        self._refuse_while_asking()
        self._take_lock()
        try:
            yield
        finally:
            self._lock.release()

    def _take_lock(self) -> None:
        with explain_os_errors(self.root):
            if not self._lock.acquire(wait=False):
                _log.info(
                    "%s: another process is running it, waiting for it to end",
                    self.name,
                    extra=logs.event("stage_waiting", stage=self.name),
                )
                self._lock.acquire()

    def __enter__(self) -> StageRun:
        self._refuse_while_asking()
        if not self._lock.is_mine:
            self._take_lock()
        clean_up(self.root / MANIFEST_NAME)
        self._record("running", None)
        self._about.enter_context(logs.about(stage=self.name))
        self._clock = time.monotonic()
        _log.info("%s: started", self.name, extra=logs.event("stage_started", only_json=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        ended = error
        try:
            if error is None:
                self._commit()
            else:
                # What failed may be the disk itself: the first error is the one that the user must see.
                with contextlib.suppress(DeployError, OSError):
                    self._record(*_how_it_ended(error))
        except BaseException as late:
            ended = late
            with contextlib.suppress(DeployError, OSError):
                self._record(*_how_it_ended(late))
            raise
        finally:
            remove_unless_switched(self.root, self._temporaries)
            self._lock.release()
            self._say_how_it_ended(ended)

    def _say_how_it_ended(self, error: BaseException | None) -> None:
        """In the log, after which lines and errors are no longer about this stage."""
        seconds = round(time.monotonic() - self._clock, 3)
        if error is None:
            files, size = self._made
            extra = logs.event("stage_done", only_json=True, seconds=seconds, files=files, bytes=size)
            _log.info("%s: done", self.name, extra=extra)
            self._about.close()
        else:
            extra = logs.event("stage_failed", only_json=True, seconds=seconds)
            _log.error("%s: %s: %s", self.name, *_how_it_ended(error), extra=extra)
            self._about.__exit__(type(error), error, error.__traceback__)

    def _refuse_while_asking(self) -> None:
        if _ASKING.get():
            raise Outdated(self.name)

    @contextlib.contextmanager
    def artifact(self, relative: str, kind: str) -> Iterator[Path]:
        """A temporary path to write an artifact to; it gets its name when the stage ends well.

        Raises:
            ManifestError: the path leaves the workspace, or leads over a symbolic link.
            EnvironmentLacks: the disk is full or read-only.
        """
        final = WorkPath(self.root, relative)
        with explain_os_errors(final), contextlib.ExitStack() as held:
            final.parent.make_folder()
            staged = held.enter_context(temporary(final))
            yield staged.checked()
            staged.flush()
            self._temporaries.enter_context(held.pop_all())
        self._pending[relative] = (staged, kind)

    def bytes_artifact(self, relative: str, kind: str, content: bytes) -> None:
        """Write an artifact, see `artifact`."""
        with self.artifact(relative, kind) as path, path.open("xb") as file:
            file.write(content)

    def text_artifact(self, relative: str, kind: str, text: str) -> None:
        """Write a text as an artifact, see `artifact`."""
        self.bytes_artifact(relative, kind, text.encode())

    def lines_artifact(self, relative: str, kind: str, lines: Iterable[str]) -> None:
        """Write lines, line breaks included, as an artifact as they come, see `artifact`."""
        with self.artifact(relative, kind) as path, path.open("x", encoding="utf-8", newline="") as file:
            file.writelines(lines)

    def json_artifact(self, relative: str, kind: str, value: Any) -> None:
        """Write a JSON artifact, see `artifact`."""
        self.text_artifact(relative, kind, json.dumps(value, indent=1, allow_nan=False) + "\n")

    def folder(self, relative: str) -> WorkPath:
        """A folder to write to as the stage goes, which replaces the folder ``relative`` when the stage ends well.

        What a killed or failed attempt of the same fingerprint wrote is still in it; that of any other goes.

        Raises:
            ManifestError: the path leaves the workspace, or leads over a symbolic link.
            EnvironmentLacks: the disk is full or read-only.
        """
        final = WorkPath(self.root, relative)
        attempt = final.parent / f".{final.name}{_ATTEMPT}{self.fingerprint[:8]}"
        with explain_os_errors(final):
            for other in attempt_folders(self.root, relative):
                if other != attempt:
                    other.remove()
            attempt.make_folder()
        self._folders[relative] = attempt
        return attempt

    def pieces(self, relative: str) -> WorkPath:
        """The folder of the pieces of the run that is to become the folder ``relative``; it need not be there.

        When the stage ends well it goes, and so do those of other fingerprints, but where a shard runs.
        """
        self._runs.append(relative)
        return self.pieces_folder(relative)

    def pieces_folder(self, relative: str) -> WorkPath:
        """As `pieces`, for a process that writes one of them and does not end the stage."""
        final = WorkPath(self.root, relative)
        return final.parent / f".{final.name}{PIECES}{self.fingerprint[:8]}"

    def add_artifact(self, relative: str, kind: str) -> None:
        """Record a file of a `folder`, under the path that it is going to have.

        Raises:
            ManifestError: it is not there.
        """
        path = self._attempted(relative)
        if not path.is_file():
            raise ManifestError("was to be recorded, but is not there", where=str(path))
        self._in_folders[relative] = (path, kind)

    def _attempted(self, relative: str) -> WorkPath:
        """Where a file is now that is going to be at ``relative``."""
        for folder, attempt in self._folders.items():
            if relative.startswith(f"{folder}/"):
                return attempt / relative[len(folder) + 1 :]
        return WorkPath(self.root, relative)

    def result(self, kind: str, name: str, value: dict[str, Any]) -> None:
        """Record a result, for example ``("metrics", "onnx-cpu", {...})``."""
        self._results.setdefault(kind, {})[name] = value

    def spec(self, spec: ModelSpec) -> None:
        """Record the model spec."""
        self._spec = spec

    def config(self, config: dict[str, Any]) -> None:
        """Record the resolved deploy config."""
        self._config = config

    def skip(self, reason: str) -> None:
        """Record that the stage can't run here, and why. Not used together with ``with``."""
        _log.info("%s: skipped: %s", self.name, reason, extra=logs.event("stage_skipped", stage=self.name))
        last = read_manifest(self.root / MANIFEST_NAME).stages.get(self.name)
        # The same again changes nothing: what was made from the manifest stays up to date.
        if last is None or (last.status, last.reason, last.fingerprint) != ("skipped", reason, self.fingerprint):
            self._refuse_while_asking()

            def change(manifest: Manifest) -> None:
                outputs, results = (last.outputs, last.results) if last else ([], [])
                manifest.stages[self.name] = self._stage("skipped", reason, outputs, results)

            update_manifest(self.root / MANIFEST_NAME, change)

    # -- the end ----------------------------------------------------------------------------------------------------

    def _stage(self, status: StageStatus, reason: str | None, outputs: list[str], results: list[str]) -> Stage:
        if self._done is not None and status == "done":
            return self._done.model_copy(update={"outputs": outputs, "results": results})
        gpu, driver = provenance.gpu()
        return Stage(
            tool=self._tool,
            tool_version=__version__,
            status=status,
            reason=reason,
            fingerprint=self.fingerprint,
            key=self._key,
            outputs=outputs,
            results=results,
            command=provenance.command_line(),
            host=provenance.host(),
            image=provenance.image(),
            gpu=gpu,
            driver=driver,
            started=self._started,
            ended=None if status == "running" else _now(),
        )

    def _record(self, status: AttemptStatus, reason: str | None) -> None:
        """Note how this attempt goes: beside the result, where there is one."""

        def change(manifest: Manifest) -> None:
            last = manifest.stages.get(self.name)
            if last is not None and last.status == "done":
                attempt = Attempt(
                    status=status,
                    reason=reason,
                    command=provenance.command_line(),
                    host=provenance.host(),
                    started=self._started,
                    ended=None if status == "running" else _now(),
                )
                manifest.stages[self.name] = last.model_copy(update={"attempt": attempt})
                return
            outputs, results = (last.outputs, last.results) if last else ([], [])
            lasting: StageStatus = "failed" if status == "interrupted" else status
            manifest.stages[self.name] = self._stage(lasting, reason, outputs, results)

        update_manifest(self.root / MANIFEST_NAME, change)

    def _commit(self) -> None:
        staged = self._pending | self._in_folders
        records = {relative: self._artifact_record(path, kind) for relative, (path, kind) in staged.items()}
        self._made = len(records), sum(record.bytes for record in records.values())
        for folder in {path.parent for path, _ in staged.values()}:
            folder.flush()

        def change(manifest: Manifest) -> None:
            last = manifest.stages.get(self.name)
            outdated = set(last.outputs if last else ()) - set(records)
            for relative in outdated:
                manifest.artifacts.pop(relative, None)
            manifest.artifacts.update(records)
            results = sorted(f"{kind}/{name}" for kind, values in self._results.items() for name in values)
            manifest.stages[self.name] = self._stage("done", None, sorted(records), results)
            for kind, values in self._results.items():
                manifest.results.setdefault(kind, {}).update(values)
            if self._spec is not None:
                manifest.spec = self._spec
            if self._config is not None:
                manifest.config = self._config
            trust.seal(manifest, records, config=self._config is not None)
            manifest.switch = self._switch(outdated)

        update_manifest(self.root / MANIFEST_NAME, change)

    def _switch(self, outdated: set[str]) -> Switch | None:
        """From the names of this attempt to those that the manifest gives; folders first, they replace whole ones."""
        sources = {**self._folders, **{relative: path for relative, (path, _) in self._pending.items()}}
        alone = [path for path in outdated if not any(path.startswith(f"{folder}/") for folder in self._folders)]
        pieces = [
            path.relative
            for run in self._runs
            for path in pieces_folders(self.root, run)
            if not any(stage_lock(self.root, f"{self.name}-{piece}").is_held() for piece in path.names())
        ]
        return switch_of(self.root, sources, [*sorted(alone), *pieces])

    def _artifact_record(self, path: WorkPath, kind: str) -> Artifact:
        file = path.checked()
        return Artifact(sha256=sha256_of_file(file), bytes=file.stat().st_size, kind=kind, stage=self.name)


def _how_it_ended(error: BaseException) -> tuple[AttemptStatus, str]:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "interrupted"
    return "failed", str(error) if isinstance(error, DeployError) else f"{type(error).__name__}: {error}"


def differences(old: Any, new: Any, place: str = "") -> list[str]:
    """What of a stage's key is other in ``new`` than in ``old``, a line each."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in sorted(old.keys() | new.keys()):
            below = f"{place}.{key}" if place else str(key)
            if key not in old:
                lines.append(f"{below}: new, {new[key]!r}")
            elif key not in new:
                lines.append(f"{below}: gone, was {old[key]!r}")
            else:
                lines += differences(old[key], new[key], below)
        return lines
    return [] if old == new else [f"{place}: {old!r} -> {new!r}"]
