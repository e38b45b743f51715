"""The manifest: the one file that says what a workspace holds, who made it, from what, and with what result.

Writers lock, read, change, write a temporary file, flush and rename; so a reader never sees half a manifest, a killed
writer leaves the last whole one, and two writers lose nothing. The JSON Schema in ``docs/manifest.schema.json`` is
generated from the models here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import ManifestError
from shared.files import FileIdentity, explain_os_errors, sha256_of_file, write_text
from shared.spec import ModelSpec

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"

StageStatus = Literal["running", "done", "failed", "skipped"]


class Artifact(BaseModel):
    """A file in the workspace."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)
    kind: str = Field(description="onnx, program, predictions, raw, engine, report, ...")
    stage: str = Field(description="The stage that made it")

    def describes(self, path: Path) -> bool:
        """Whether the file at ``path`` is there, with this content."""
        return path.is_file() and path.stat().st_size == self.bytes and sha256_of_file(path) == self.sha256


class Stage(BaseModel):
    """One step of the way: what ran, where, from what, and how it ended."""

    model_config = ConfigDict(extra="forbid")

    tool: str
    tool_version: str
    status: StageStatus
    reason: str | None = Field(default=None, description="Why it was skipped, or how it failed")
    fingerprint: str = Field(description="sha256 over `key`")
    key: dict[str, Any] = Field(description="Everything that the result depends on: config part, inputs, versions")
    outputs: list[str] = Field(default_factory=list, description="Paths of the artifacts it made")
    results: list[str] = Field(default_factory=list, description="Results it recorded, as kind/name")
    command: str = Field(description="The command line that made it, and makes it again")
    host: str
    image: str | None = Field(default=None, description="Container image, when it ran in one")
    gpu: str | None = None
    driver: str | None = None
    started: str = Field(description="ISO 8601, UTC")
    ended: str | None = None


class Manifest(BaseModel):
    """The whole manifest."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    config: dict[str, Any] | None = Field(default=None, description="The resolved deploy config")
    spec: ModelSpec | None = Field(default=None, description="The model spec")
    artifacts: dict[str, Artifact] = Field(default_factory=dict, description="By path relative to the workspace")
    stages: dict[str, Stage] = Field(default_factory=dict, description="By name of the stage")
    results: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="By kind (verification, metrics, latency), then by name"
    )


# The manifest of each file as this process read or wrote it last. Writers replace the file, so that another content is
# another inode. A command needs two workspaces at most.
_MOST_REMEMBERED = 8
_read: dict[Path, tuple[FileIdentity, Manifest]] = {}


def read_manifest(path: Path) -> Manifest:
    """Read ``manifest.json``. While the file is the same one, so is the object: don't change it, see `update_manifest`.

    Raises:
        ManifestError: not there, not JSON, not a manifest, or written by a newer version.
    """
    try:
        identity = FileIdentity.of(path)
        known, manifest = _read.get(path, (None, None))
        if manifest is not None and identity == known:
            return manifest
        with path.open(encoding="utf-8") as file:
            identity, text = FileIdentity.of(file.fileno()), file.read()
    except FileNotFoundError as error:
        raise ManifestError(
            "no manifest here", where=str(path), hint="start with the exporter: exporter export --config … --work …"
        ) from error
    except (OSError, ValueError) as error:
        raise ManifestError(f"can't be read as JSON ({error})", where=str(path)) from error
    manifest = _parse(path, text)
    if identity.is_settled():
        _remember(path, identity, manifest)
    return manifest


def _parse(path: Path, text: str) -> Manifest:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ManifestError(f"can't be read as JSON ({error})", where=str(path)) from error
    version = value.get("schema_version") if isinstance(value, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ManifestError(
            f"schema version {version} is newer than this tool's ({SCHEMA_VERSION})",
            where=str(path),
            hint="use a newer version of the tool; the workspace was not touched",
        )
    try:
        return Manifest.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ManifestError(f"not a manifest: {place}: {first['msg']}", where=str(path)) from error


def update_manifest(path: Path, change: Callable[[Manifest], None]) -> Manifest:
    """Apply ``change`` to the manifest at ``path`` under the lock, and write it; a missing one is made.

    Returns:
        What was written. Not to be changed.

    Raises:
        ManifestError: the manifest there can't be read.
        EnvironmentLacks: the disk is full or read-only.
    """
    with explain_os_errors(path), FileLock(path.with_suffix(".lock")):
        manifest = _copy(read_manifest(path)) if path.exists() else Manifest()
        change(manifest)
        # What is remembered shares nothing with what the caller may change later.
        written = _copy(manifest)
        write_text(path, json.dumps(written.model_dump(mode="json"), indent=1, sort_keys=True, allow_nan=False) + "\n")
        _remember(path, FileIdentity.of(path), written)
    return written


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
