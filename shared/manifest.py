"""The manifest: the one file that says what a workspace holds, who made it, from what, and with what result.

Writers lock, read, change, write a temporary file, flush and rename; so a reader never sees half a manifest, a killed
writer leaves the last whole one, and two writers lose nothing. The JSON Schema in ``docs/manifest.schema.json`` is
generated from the models here.

New files take the place of old ones together with the manifest that describes them. They are written under other names,
and flushed; one write of the manifest then says what they are *and* how they get their names (`Switch`); the renames
follow, and a second write clears the list. Killed before the first write, everything is as it was; killed after it, the
next command that reads the manifest does the rest, before anything else.
"""

from __future__ import annotations

import datetime
import json
import shlex
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from shared.errors import EnvironmentLacks, ManifestError
from shared.files import FileIdentity, explain_os_errors, sha256_of_file, write_text
from shared.json_reader import MANIFEST_BYTES, parse_json
from shared.locks import LOCKS, Lock
from shared.spec import ModelSpec
from shared.temporaries import remove_orphans
from shared.work_path import WorkPath

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"

StageStatus = Literal["running", "done", "failed", "skipped"]
AttemptStatus = Literal["running", "failed", "interrupted"]


Name = Annotated[str, Field(max_length=1000)]
Names = Annotated[list[Name], Field(max_length=1_000_000)]
Seals = Annotated[list[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]], Field(max_length=100)]
# Reasons and command lines.
Text = Annotated[str, Field(max_length=1_000_000)]


def _time(text: str) -> str:
    datetime.datetime.fromisoformat(text)
    return text


def _command(text: str) -> str:
    shlex.split(text)
    return text


def _key(value: dict[str, Any]) -> dict[str, Any]:
    for part in ("config", "inputs", "versions"):
        if not isinstance(value.get(part, {}), dict):
            raise ValueError(f"{part} should be an object")
    for part in ("inputs", "versions"):
        if not all(isinstance(text, str) for text in value.get(part, {}).values()):
            raise ValueError(f"{part} should hold texts")
    return value


def _switched(path: str) -> str:
    parts = path.split("/")
    if path.startswith("/") or {"", ".", ".."} & set(parts) or parts[0] in (MANIFEST_NAME, LOCKS, ".versions"):
        raise ValueError("is not a path that a commit replaces")
    return path


Time = Annotated[str, Field(max_length=100), AfterValidator(_time)]
SwitchedPath = Annotated[Name, AfterValidator(_switched)]


class Artifact(BaseModel):
    """A file in the workspace."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)
    kind: Name = Field(description="onnx, program, predictions, raw, engine, report, ...")
    stage: Name = Field(description="The stage that made it")

    def describes(self, path: Path) -> bool:
        """Whether the file at ``path`` is there, with this content."""
        try:
            status = path.stat()
        except (OSError, ValueError):  # not there; a loop of links, a name that is no path
            return False
        return stat.S_ISREG(status.st_mode) and status.st_size == self.bytes and sha256_of_file(path) == self.sha256


class Attempt(BaseModel):
    """A run of a stage that is done already which did not replace the result: it goes on, failed, or was stopped."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: AttemptStatus
    reason: Text | None = Field(default=None, description="How it failed")
    command: Annotated[Text, AfterValidator(_command)]
    host: Name
    started: Time = Field(description="ISO 8601, UTC")
    ended: Time | None = None


class Stage(BaseModel):
    """One step of the way: what ran, where, from what, and how it ended."""

    model_config = ConfigDict(extra="forbid")

    tool: Name
    tool_version: Name
    status: StageStatus
    reason: Text | None = Field(default=None, description="Why it was skipped, or how it failed")
    fingerprint: Name = Field(description="sha256 over `key`")
    key: Annotated[dict[str, Any], AfterValidator(_key)] = Field(
        description="Everything that the result depends on: config part, inputs, versions"
    )
    outputs: Names = Field(default_factory=list, description="Paths of the artifacts it made")
    results: Names = Field(default_factory=list, description="Results it recorded, as kind/name")
    command: Annotated[Text, AfterValidator(_command)] = Field(
        description="The command line that made it, and makes it again"
    )
    host: Name
    image: Name | None = Field(default=None, description="Container image, when it ran in one")
    gpu: Name | None = None
    driver: Name | None = None
    started: Time = Field(description="ISO 8601, UTC")
    ended: Time | None = None
    attempt: Attempt | None = Field(default=None, description="The last run since, if it did not end well")

    @model_serializer(mode="wrap")
    def _without_nothing(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(serialize(self), "attempt")


class Replacement(BaseModel):
    """A file or folder that is to get another name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: SwitchedPath = Field(description="Path of the new one; not there: it has its name already")
    target: SwitchedPath = Field(description="Path to be; what is there is removed")


class Switch(BaseModel):
    """What is still to be done before the files are what the manifest says: by whoever reads it next."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    replace: Annotated[list[Replacement], Field(max_length=1_000_000)] = Field(default_factory=list)
    remove: Annotated[list[SwitchedPath], Field(max_length=1_000_000)] = Field(
        default_factory=list, description="Paths of files and folders"
    )


class Manifest(BaseModel):
    """The whole manifest."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    config: dict[str, Any] | None = Field(default=None, description="The resolved deploy config")
    spec: ModelSpec | None = Field(default=None, description="The model spec")
    artifacts: dict[str, Artifact] = Field(default_factory=dict, description="By path relative to the workspace")
    stages: dict[str, Stage] = Field(default_factory=dict, description="By name of the stage")
    results: dict[str, dict[str, dict[str, Any]]] = Field(
        default_factory=dict, description="By kind (verification, metrics, latency), then by name"
    )
    seals: dict[Name, Seals] = Field(
        default_factory=dict, description="Who trusts what runs as code, by path of the artifact: see shared/trust.py"
    )
    switch: Switch | None = Field(default=None, description="A commit that was interrupted")

    # Left out, so that earlier versions can read the rest.
    @model_serializer(mode="wrap")
    def _without_nothing(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(_without(serialize(self), "switch"), "seals")


def _without(value: dict[str, Any], name: str) -> dict[str, Any]:
    if not value.get(name):
        value.pop(name, None)
    return value


# The manifest of each file as this process read or wrote it last. Writers replace the file, so that another content is
# another inode. A command needs two workspaces at most.
_MOST_REMEMBERED = 8
_read: dict[Path, tuple[FileIdentity, Manifest]] = {}


def read_manifest(path: Path) -> Manifest:
    """Read ``manifest.json``. While the file is the same one, so is the object: don't change it, see `update_manifest`.

    Raises:
        ManifestError: not there, not JSON, not a manifest, or written by a newer version.
        EnvironmentLacks: a commit was interrupted, and can't be ended because the folder can't be written.
    """
    manifest = _read_as_it_is(path)
    if manifest.switch is None:
        return manifest
    try:
        with explain_os_errors(path), _lock(path):
            return _end_switch(path)
    except EnvironmentLacks as error:
        raise EnvironmentLacks(
            f"a commit was interrupted here, and can't be ended: {error.message}",
            where=str(path),
            hint="read it once where it can be written: manifest show --work …",
        ) from error


def _read_as_it_is(path: Path) -> Manifest:
    try:
        identity = FileIdentity.of(path)
        known, manifest = _read.get(path, (None, None))
        if manifest is not None and identity == known:
            return manifest
        with WorkPath.of(path).open_file() as file:
            identity, content = FileIdentity.of(file.fileno()), file.read(MANIFEST_BYTES + 1)
    except FileNotFoundError as error:
        raise ManifestError(
            "no manifest here", where=str(path), hint="start with the exporter: exporter export --config … --work …"
        ) from error
    except (OSError, ValueError) as error:  # a loop of links, a name that is too long or holds NUL
        raise ManifestError(f"can't be read ({error})", where=str(path)) from error
    if len(content) > MANIFEST_BYTES:
        raise ManifestError(f"is larger than {MANIFEST_BYTES >> 20} MB", where=str(path), hint="this is no manifest")
    manifest = _parse(path, content)
    if identity.is_settled():
        _remember(path, identity, manifest)
    return manifest


def _parse(path: Path, content: bytes) -> Manifest:
    value = parse_json(content, str(path), error=ManifestError)
    if not isinstance(value, dict):
        raise ManifestError("not a manifest, which is an object", where=str(path))
    version = value.get("schema_version", SCHEMA_VERSION)
    if type(version) is not int or version < 1:
        raise ManifestError(f"schema version {version!r:.40} is none of ours (1 to {SCHEMA_VERSION})", where=str(path))
    if version > SCHEMA_VERSION:
        raise ManifestError(
            f"schema version {version} is newer than this tool's ({SCHEMA_VERSION})",
            where=str(path),
            hint="use a newer version of the tool; the workspace was not touched",
        )
    try:
        return Manifest.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ManifestError(f"not a manifest: {place}: {first['msg']}", where=str(path)) from error


def clean_up(path: Path) -> None:
    """End a commit that was interrupted, and remove what killed processes left in the workspace (`remove_orphans`).

    Raises:
        ManifestError: the manifest at ``path`` can't be read.
        EnvironmentLacks: the disk is full or read-only.
    """
    # Nobody may commit meanwhile: what is waiting to be switched in looks like an orphan.
    with explain_os_errors(path), _lock(path):
        if path.exists():
            _end_switch(path)
        remove_orphans(path.parent)


def update_manifest(path: Path, change: Callable[[Manifest], None]) -> Manifest:
    """Apply ``change`` to the manifest at ``path`` under the lock, and write it; a missing one is made.

    Args:
        path: the manifest.
        change: what to change. Where it sets ``switch``, the files are switched before this returns.

    Returns:
        What was written. Not to be changed.

    Raises:
        ManifestError: the manifest there can't be read.
        EnvironmentLacks: the disk is full or read-only.
    """
    with explain_os_errors(path), _lock(path):
        manifest = _copy(_end_switch(path)) if path.exists() else Manifest()
        change(manifest)
        _write(path, manifest)
        return _end_switch(path)


def _lock(path: Path) -> Lock:
    return Lock(WorkPath(path.parent, path.with_suffix(".lock").name))


def _end_switch(path: Path) -> Manifest:
    """The manifest, after doing what it says is to be done. The lock is held."""
    manifest = _read_as_it_is(path)
    if manifest.switch is None:
        return manifest
    _switch_files(path.parent, manifest.switch)
    return _write(path, manifest.model_copy(update={"switch": None}))


def switch_of(root: Path, sources: Mapping[str, WorkPath], removed: Iterable[str]) -> Switch | None:
    """What is to be done when the manifest has been written; None: nothing.

    Args:
        root: the workspace.
        sources: by the path that each file or folder is to have.
        removed: paths of files.

    Raises:
        ManifestError: a path is none that a commit may touch.
    """
    try:
        switch = Switch(
            replace=[Replacement(source=path.relative, target=target) for target, path in sources.items()],
            remove=list(removed),
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise ManifestError(f"path {first['input']!r} can't be replaced or removed", where=str(root)) from error
    return switch if switch.replace or switch.remove else None


def _write(path: Path, manifest: Manifest) -> Manifest:
    # What is remembered shares nothing with what the caller may change later.
    written = _copy(manifest)
    write_text(WorkPath.of(path), _text(written))
    _remember(path, FileIdentity.of(path), written)
    return written


def _switch_files(root: Path, switch: Switch) -> None:
    """Do what is to be done, however often it was begun."""
    changed = set()
    for each in switch.replace:
        source, target = WorkPath(root, each.source), WorkPath(root, each.target)
        if source.status() is None:
            continue
        if source.is_folder() or target.is_folder():
            target.remove()
        target.parent.make_folder()
        source.take_place_of(target)
        changed |= {source.parent, target.parent}
    for relative in switch.remove:
        path = WorkPath(root, relative)
        if path.status() is not None:
            path.remove()
            changed.add(path.parent)
    for folder in changed:
        folder.flush()


def _text(manifest: Manifest) -> str:
    """As JSON with sorted keys. An artifact is one line: they are many, and json indents ten times slower than not."""
    artifacts = manifest.model_dump(mode="json", include={"artifacts"})["artifacts"]
    rest = manifest.model_dump(mode="json", exclude={"artifacts"})
    encode = json.JSONEncoder(sort_keys=True).encode
    lines = [f"  {encode(path)}: {encode(artifacts[path])}" for path in sorted(artifacts)]
    text = json.dumps({"artifacts": {}, **rest}, indent=1, sort_keys=True, allow_nan=False)
    if lines:
        text = text.replace('"artifacts": {}', '"artifacts": {\n' + ",\n".join(lines) + "\n }", 1)
    return f"{text}\n"


def _copy(manifest: Manifest) -> Manifest:
    """As JSON has it, and to be changed: all but the artifacts, which are many and immutable, is new."""
    rest = manifest.model_copy(update={"artifacts": {}}).model_dump(mode="json")
    return Manifest.model_validate(rest).model_copy(update={"artifacts": dict(manifest.artifacts)})


def _remember(path: Path, identity: FileIdentity, manifest: Manifest) -> None:
    if len(_read) >= _MOST_REMEMBERED:
        _read.clear()
    _read[path] = identity, manifest


def json_schema() -> dict[str, Any]:
    """JSON Schema of ``manifest.json``."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Manifest.model_json_schema()}
