"""Versions of a workspace: `manifest tag` keeps what is here now, `manifest rollback` brings it back.

In the workspace::

    .versions/<name>.json        a version: its name, when, a note, and the manifest of all that was finished then
    .versions/objects/<sha256>   each artifact once, however many versions have it

An object is a hard link to the artifact, so that a version takes no space until the artifact is replaced; where a file
system has no hard links it is a copy. Tools replace artifacts by renaming, which leaves the object alone; who edits an
artifact in place changes both, which the hash gives away.

Killed at any moment, a tag is there or not, and a rollback leaves the old state or the new one.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared import trust
from shared.errors import ManifestError, UsageError
from shared.files import copy_flushed, explain_os_errors, inside, write_json
from shared.json_reader import MANIFEST_BYTES, parse_json
from shared.locks import Lock
from shared.manifest import MANIFEST_NAME, Artifact, Manifest, clean_up, switch_of, update_manifest
from shared.stages import hold_stages, staged_files
from shared.temporaries import temporary
from shared.work_path import WorkPath
from shared.workspace import Workspace

FOLDER = ".versions"
_OBJECTS = "objects"
_LONGEST_NAME = 80
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# What os.link answers where there are no hard links: not supported, other owner (fs.protected_hardlinks), too many.
_NO_LINKS = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK}


class Version(BaseModel):
    """What was finished in a workspace at some time."""

    model_config = ConfigDict(extra="forbid")

    name: str
    created: str = Field(description="ISO 8601, UTC")
    note: str = Field(default="", description="What the user says of it")
    baseline: bool = Field(default=False, description="Whether later states are compared with it")
    manifest: Manifest = Field(description="The finished part of the manifest")


@dataclass(frozen=True)
class Tagged:
    """A version that was made.

    Attributes:
        version: the version.
        left_out: stages that were not finished, and are not in it.
    """

    version: Version
    left_out: list[str]


@dataclass(frozen=True)
class RolledBack:
    """What a rollback did.

    Attributes:
        kept: name of the version that holds what was here before; None: a version had it already, or it was discarded.
        restored: artifacts that were brought back.
        removed: artifacts that the version does not have.
    """

    kept: str | None
    restored: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


def finished_part(manifest: Manifest) -> Manifest:
    """The stages of ``manifest`` that are done or were skipped, with what the done ones made."""
    done = {
        name: stage.model_copy(update={"attempt": None})
        for name, stage in manifest.stages.items()
        if stage.status == "done"
    }
    skipped = {
        name: stage.model_copy(update={"outputs": [], "results": []})
        for name, stage in manifest.stages.items()
        if stage.status == "skipped"
    }
    recorded = {entry for stage in manifest.stages.values() for entry in stage.results}
    unfinished = recorded - {entry for stage in done.values() for entry in stage.results}
    return manifest.model_copy(
        update={
            "stages": {**done, **skipped},
            "artifacts": {path: record for path, record in manifest.artifacts.items() if record.stage in done},
            "results": {
                kind: {name: value for name, value in values.items() if f"{kind}/{name}" not in unfinished}
                for kind, values in manifest.results.items()
            },
        }
    )


def tag(work: Path, name: str, *, note: str = "", move: bool = False, baseline: bool = False) -> Tagged:
    """Keep what is finished in the workspace now as version ``name``.

    Raises:
        UsageError: the name makes no file name, or is taken.
        ManifestError: nothing is finished, an artifact is missing or was changed, or a finished stage is running again.
        EnvironmentLacks: the disk is full or read-only.
    """
    _check_name(name)
    workspace = Workspace.open(work)
    done = finished_part(workspace.manifest())
    with _versions_lock(work), hold_stages(work, list(done.stages)):
        if not move and _file(work, name).status() is not None:
            raise UsageError(
                f"there is a version '{name}' already", where=str(work), hint="choose another name, or --move"
            )
        manifest = workspace.manifest()
        done = finished_part(manifest)
        if not done.stages:
            raise ManifestError("nothing is finished here yet", where=str(work), hint="run a stage first")
        version = _keep(work, name, note, done, baseline=baseline)
        _collect(work)
    return Tagged(version, sorted(manifest.stages.keys() - done.stages.keys()))


def untag(work: Path, name: str) -> int:
    """Let version ``name`` go, with the objects that no other version has.

    Returns:
        How many bytes the disk gets back.

    Raises:
        UsageError: there is no such version.
    """
    Workspace.open(work)
    with _versions_lock(work):
        _collect(work)  # what one that was killed had not removed yet
        read_version(work, name)
        _file(work, name).remove_file()
        return _collect(work)


def versions(work: Path) -> list[Version]:
    """Every version of a workspace, oldest first.

    Raises:
        ManifestError: one of them can't be read.
    """
    folder = WorkPath(work, FOLDER)
    kept = [_read(folder / name) for name in folder.names() if name.endswith(".json") and not name.startswith(".")]
    return sorted(kept, key=lambda version: version.created)


def read_version(work: Path, name: str) -> Version:
    """The version called ``name``.

    Raises:
        UsageError: there is none.
        ManifestError: it can't be read.
    """
    _check_name(name)
    if not _file(work, name).is_file():
        known = ", ".join(version.name for version in versions(work)) or "none"
        raise UsageError(f"there is no version '{name}'", where=str(work), hint=f"there are: {known}")
    return _read(_file(work, name))


def rollback(work: Path, name: str, *, discard: bool = False) -> RolledBack:
    """Bring back the artifacts, stages, results, spec and config of version ``name``.

    What is finished now is kept as a version of its own, unless one has it already.

    Raises:
        UsageError: there is no such version.
        ManifestError: the version is not whole (nothing was changed then), what is here now can't be kept, or a stage
            is running here.
        EnvironmentLacks: the disk is full or read-only.
    """
    workspace = Workspace.open(work)
    with _versions_lock(work):
        version = read_version(work, name)
        target = version.manifest
        for relative in target.artifacts:
            KeptWorkspace(work, version).artifact(relative)
        with hold_stages(work, sorted({*workspace.manifest().stages, *target.stages})):
            present = workspace.manifest()
            kept = None if discard else _keep_present(work, name, present)
            restored = [
                relative
                for relative, record in target.artifacts.items()
                if not record.describes(inside(work, relative))
            ]
            removed = [relative for relative in present.artifacts if relative not in target.artifacts]
            objects = {path: _object(work, target.artifacts[path]) for path in restored}
            with staged_files(work, objects, _link_or_copy) as staged:
                _replace(work, present, target, staged, removed)
    return RolledBack(kept, restored, removed)


class KeptWorkspace:
    """A version to read from, as if it were the workspace."""

    def __init__(self, root: Path, version: Version) -> None:
        self.root = root
        self.version = version

    def manifest(self) -> Manifest:
        """The manifest of what was finished then."""
        return self.version.manifest

    def artifact(self, relative: str) -> Path:
        """The path of an artifact whose content is what it was then. Not to be written to.

        Raises:
            ManifestError: the version has no such artifact, or its object is missing or was changed.
        """
        record = self.version.manifest.artifacts.get(relative)
        where = f"{self.root}/{relative} of version '{self.version.name}'"
        if record is None:
            raise ManifestError("is not in that version", where=where)
        path = _object(self.root, record).checked()
        if not path.is_file():
            raise ManifestError(f"{FOLDER}/{_OBJECTS}/{record.sha256} is missing", where=where)
        if not record.describes(path):
            hint = "the artifact was edited in place, or the disk errs"
            raise ManifestError("differs from its hash; not loaded", where=where, hint=hint)
        return path


# -- files ------------------------------------------------------------------------------------------------------------


def _file(work: Path, name: str) -> WorkPath:
    return WorkPath(work, f"{FOLDER}/{name}.json")


def _object(work: Path, record: Artifact) -> WorkPath:
    return WorkPath(work, f"{FOLDER}/{_OBJECTS}/{record.sha256}")


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise UsageError(f"'{name}' can't be the name of a version", hint="use letters, digits, '.', '-' and '_'")


@contextlib.contextmanager
def _versions_lock(work: Path) -> Iterator[None]:
    with explain_os_errors(work):
        WorkPath(work, f"{FOLDER}/{_OBJECTS}").make_folder()
        with Lock(WorkPath(work, f"{FOLDER}/lock")):
            clean_up(work / MANIFEST_NAME)
            yield


def _read(path: WorkPath) -> Version:
    with path.open_file() as file:
        content = file.read(MANIFEST_BYTES + 1)
    if len(content) > MANIFEST_BYTES:
        raise ManifestError(f"is larger than {MANIFEST_BYTES >> 20} MB", where=str(path), hint="this is no version")
    try:
        return Version.model_validate(parse_json(content, str(path), error=ManifestError))
    except ValidationError as error:
        reason = str(error).splitlines()[0]
        raise ManifestError(f"can't be read as a version ({reason})", where=str(path)) from error


def _link_or_copy(source: WorkPath, target: WorkPath) -> None:
    try:
        source.link_to(target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        copy_flushed(source.checked(), target)


# -- keeping ----------------------------------------------------------------------------------------------------------


def _keep(work: Path, name: str, note: str, manifest: Manifest, *, baseline: bool = False) -> Version:
    for relative, record in manifest.artifacts.items():
        _keep_object(work, relative, record)
    WorkPath(work, f"{FOLDER}/{_OBJECTS}").flush()
    created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds")
    version = Version(name=name, created=created, note=note, baseline=baseline, manifest=manifest)
    write_json(_file(work, name), version.model_dump(mode="json"))
    return version


def _keep_object(work: Path, relative: str, record: Artifact) -> None:
    final = _object(work, record)
    if record.describes(final.checked()):
        return
    source, where = WorkPath(work, relative), f"{work}/{relative}"
    if not source.is_file():
        raise ManifestError("is in the manifest but not on disk; can't be kept", where=where, hint="make it again")
    with temporary(final) as copy:
        _link_or_copy(source, copy)
        if not record.describes(copy.checked()):
            raise ManifestError(
                "differs from its hash in the manifest; can't be kept",
                where=where,
                hint="make it again, see: manifest check",
            )
        copy.take_place_of(final)


def _keep_present(work: Path, name: str, present: Manifest) -> str | None:
    """Keep what is here before a rollback to ``name``; returns the name of the version, or None if there is one."""
    done = finished_part(present)
    if not done.stages or any(_covers(version.manifest, done) for version in versions(work)):
        return None
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%S")
    kept = f"before-{stamp}"
    try:
        _keep(work, kept, f"what was here before the rollback to {name}", done)
    except ManifestError as error:
        raise ManifestError(
            f"what is here now can't be kept ({error.where}: {error.message}); nothing was changed",
            where=str(work),
            hint="--discard goes back without keeping it",
        ) from error
    return kept


def _covers(kept: Manifest, part: Manifest) -> bool:
    return all(kept.stages.get(name) == stage for name, stage in part.stages.items()) and all(
        kept.artifacts.get(path) == record for path, record in part.artifacts.items()
    )


def _collect(work: Path) -> int:
    """Remove objects that no version has; returns how many bytes that frees."""
    wanted = {record.sha256 for version in versions(work) for record in version.manifest.artifacts.values()}
    freed = 0
    objects = WorkPath(work, f"{FOLDER}/{_OBJECTS}")
    for name in objects.names():
        status = (objects / name).status()
        if name not in wanted and not name.startswith(".") and status is not None:
            freed += status.st_size if status.st_nlink == 1 else 0
            (objects / name).remove_file()
    return freed


# -- bringing back ----------------------------------------------------------------------------------------------------


def _replace(work: Path, present: Manifest, target: Manifest, staged: dict[str, WorkPath], removed: list[str]) -> None:
    def change(manifest: Manifest) -> None:
        if any(manifest.stages.get(name) != stage for name, stage in present.stages.items()):
            raise ManifestError("another tool changed the workspace meanwhile", where=str(work), hint="roll back again")
        before = manifest.model_copy()
        # Stages that are in neither state began after the locks were taken; they stay.
        began = {name: stage for name, stage in manifest.stages.items() if name not in present.stages}
        theirs = {path: record for path, record in manifest.artifacts.items() if record.stage in began}
        results = {kind: dict(values) for kind, values in target.results.items()}
        for entry in (entry for stage in began.values() for entry in stage.results):
            kind, _, name = entry.partition("/")
            results.setdefault(kind, {})[name] = manifest.results[kind][name]
        manifest.config, manifest.spec = target.config, target.spec
        manifest.stages = {**target.stages, **began}
        manifest.artifacts = {**target.artifacts, **theirs}
        manifest.seals = trust.seals_of(manifest, target, before)
        manifest.results = results
        manifest.switch = switch_of(work, staged, removed)

    update_manifest(work / MANIFEST_NAME, change)
