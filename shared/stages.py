"""A stage: what a tool does to a workspace, with its fingerprint, its lock, and its commit.

A stage is up to date when its key (config part, hashes of inputs, versions, our own code) is that of the last run that
finished, and everything it made is still there, unchanged. Its artifacts are written under temporary names; all of
them get their names, and the manifest its record, when the stage ends well.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from shared import __version__, provenance
from shared.errors import DeployError, ManifestError
from shared.files import explain_os_errors, flush_to_disk, inside, sha256_of_file, sha256_of_json
from shared.manifest import MANIFEST_NAME, Artifact, Manifest, Stage, StageStatus, read_manifest, update_manifest
from shared.spec import ModelSpec
from shared.temporaries import LOCKS, remove_orphans, temporary

_log = logging.getLogger("stage")


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def stage_lock(root: Path, name: str) -> FileLock:
    """The lock that whoever runs or replaces stage ``name`` of the workspace at ``root`` holds."""
    return FileLock(root / LOCKS / f"{name.replace(':', '-').replace('/', '-')}.lock")


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
                Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
                try:
                    held.enter_context(lock.acquire(timeout=0))
                except Timeout as error:
                    raise ManifestError(
                        f"stage '{name}' is running here", where=str(root), hint="try again when it has ended"
                    ) from error
        yield


class StageRun:
    """One run of a stage. Use as a context manager, after asking `up_to_date`."""

    def __init__(self, root: Path, name: str, tool: str, key: dict[str, Any]) -> None:
        self.root = root
        self.name = name
        self._tool = tool
        self._key = {**key, "code": provenance.code_digest("shared", tool)}
        self.fingerprint = sha256_of_json(self._key)
        self._started = _now()
        self._lock = stage_lock(root, name)
        self._temporaries = contextlib.ExitStack()
        self._pending: dict[str, tuple[Path, str]] = {}
        self._in_place: dict[str, str] = {}
        self._results: dict[str, dict[str, Any]] = {}
        self._spec: ModelSpec | None = None
        self._config: dict[str, Any] | None = None

    # -- before -----------------------------------------------------------------------------------------------------

    def up_to_date(self) -> bool:
        """Whether the last run had the same key, finished, and all that it made is intact. Says so when it is."""
        manifest = read_manifest(self.root / MANIFEST_NAME)
        last = manifest.stages.get(self.name)
        if last is None or last.status != "done" or last.fingerprint != self.fingerprint:
            return False
        for relative in last.outputs:
            record = manifest.artifacts.get(relative)
            if record is None or not record.describes(inside(self.root, relative)):
                return False
        _log.info("%s: up to date", self.name)
        return True

    def changes(self) -> list[str]:
        """Why the stage would run: the differences between the last key and this one, a line each."""
        last = read_manifest(self.root / MANIFEST_NAME).stages.get(self.name)
        if last is None:
            return ["it never ran"]
        if last.status != "done":
            return [f"the last run is '{last.status}'"]
        return _differences(last.key, self._key, "")

    # -- during -----------------------------------------------------------------------------------------------------

    def __enter__(self) -> StageRun:
        with explain_os_errors(self.root):
            Path(self._lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                _log.info("%s: another process is running it, waiting for it to end", self.name)
                self._lock.acquire()
        remove_orphans(self.root)
        self._record("running", None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._commit()
            else:
                reason = str(error) if isinstance(error, DeployError) else f"{type(error).__name__}: {error}"
                # What failed may be the disk itself: the first error is the one that the user must see.
                with contextlib.suppress(DeployError, OSError):
                    self._record("failed", reason)
        finally:
            self._temporaries.close()
            self._lock.release()

    @contextlib.contextmanager
    def artifact(self, relative: str, kind: str) -> Iterator[Path]:
        """A temporary path to write an artifact to; it gets its name when the stage ends well.

        Raises:
            ManifestError: the path leaves the workspace.
            EnvironmentLacks: the disk is full or read-only.
        """
        final = inside(self.root, relative)
        with explain_os_errors(final), contextlib.ExitStack() as held:
            final.parent.mkdir(parents=True, exist_ok=True)
            staged = held.enter_context(temporary(final))
            yield staged
            flush_to_disk(staged)
            self._temporaries.enter_context(held.pop_all())
        self._pending[relative] = (staged, kind)

    def json_artifact(self, relative: str, kind: str, value: Any) -> None:
        """Write a JSON artifact, see `artifact`."""
        with self.artifact(relative, kind) as path:
            path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")

    def add_artifact(self, relative: str, kind: str) -> None:
        """Record a file that is whole and in place already (runs write theirs as they go)."""
        if not inside(self.root, relative).is_file():
            raise ManifestError("was to be recorded, but is not there", where=f"{self.root}/{relative}")
        self._in_place[relative] = kind

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
        _log.info("%s: skipped: %s", self.name, reason)
        last = read_manifest(self.root / MANIFEST_NAME).stages.get(self.name)
        # The same again changes nothing: what was made from the manifest stays up to date.
        if last is None or (last.status, last.reason, last.fingerprint) != ("skipped", reason, self.fingerprint):
            self._record("skipped", reason)

    # -- the end ----------------------------------------------------------------------------------------------------

    def _stage(self, status: StageStatus, reason: str | None, outputs: list[str], results: list[str]) -> Stage:
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

    def _record(self, status: StageStatus, reason: str | None) -> None:
        def change(manifest: Manifest) -> None:
            last = manifest.stages.get(self.name)
            outputs, results = (last.outputs, last.results) if last else ([], [])
            manifest.stages[self.name] = self._stage(status, reason, outputs, results)

        update_manifest(self.root / MANIFEST_NAME, change)

    def _commit(self) -> None:
        records = {}
        for relative, (staged, kind) in self._pending.items():
            records[relative] = self._artifact_record(staged, kind)
        for relative, kind in self._in_place.items():
            records[relative] = self._artifact_record(inside(self.root, relative), kind)

        def withdraw(manifest: Manifest) -> None:
            for relative in self._outdated(manifest, records):
                manifest.artifacts.pop(relative, None)

        def change(manifest: Manifest) -> None:
            for relative, (staged, _) in self._pending.items():
                final = inside(self.root, relative)
                staged.replace(final)
                flush_to_disk(final.parent)
            for stale in set(self._last_outputs(manifest)) - set(records):
                inside(self.root, stale).unlink(missing_ok=True)
            manifest.artifacts.update(records)
            results = sorted(f"{kind}/{name}" for kind, values in self._results.items() for name in values)
            manifest.stages[self.name] = self._stage("done", None, sorted(records), results)
            for kind, values in self._results.items():
                manifest.results.setdefault(kind, {}).update(values)
            if self._spec is not None:
                manifest.spec = self._spec
            if self._config is not None:
                manifest.config = self._config

        # Killed among the renames, the manifest must not describe files that have been replaced or removed.
        if self._outdated(read_manifest(self.root / MANIFEST_NAME), records):
            update_manifest(self.root / MANIFEST_NAME, withdraw)
        update_manifest(self.root / MANIFEST_NAME, change)

    def _last_outputs(self, manifest: Manifest) -> list[str]:
        last = manifest.stages.get(self.name)
        return last.outputs if last else []

    def _outdated(self, manifest: Manifest, records: Mapping[str, Artifact]) -> list[str]:
        """Artifacts of the manifest that this run replaces by other content, or no longer makes."""
        return [
            relative
            for relative in {*self._last_outputs(manifest), *self._pending}
            if relative in manifest.artifacts and manifest.artifacts[relative] != records.get(relative)
        ]

    def _artifact_record(self, path: Path, kind: str) -> Artifact:
        return Artifact(sha256=sha256_of_file(path), bytes=path.stat().st_size, kind=kind, stage=self.name)


def _differences(old: Any, new: Any, place: str) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in sorted(old.keys() | new.keys()):
            below = f"{place}.{key}" if place else str(key)
            if key not in old:
                lines.append(f"{below}: new, {new[key]!r}")
            elif key not in new:
                lines.append(f"{below}: gone, was {old[key]!r}")
            else:
                lines += _differences(old[key], new[key], below)
        return lines
    return [] if old == new else [f"{place}: {old!r} -> {new!r}"]
