"""Results made from files that have changed since.

A stage names its inputs in its key; those that are artifacts of the workspace, by path. When the workspace holds
another version of one now, what the stage made belongs to the old one: a run of an earlier export, a verification of
earlier runs.
"""

from __future__ import annotations

import logging
import shlex
from pathlib import Path

from shared.errors import InputError
from shared.manifest import Manifest

_log = logging.getLogger("stage")


def outdated_inputs(manifest: Manifest, stage: str) -> list[str]:
    """Paths of the artifacts that ``stage`` was made from and that have changed since, or are gone."""
    record = manifest.stages[stage]
    inputs = record.key.get("inputs", {})
    return sorted(path for path, sha256 in inputs.items() if "/" in path and _hash_of(manifest, path) != sha256)


def command_here(command: str, root: Path) -> str:
    """The command that a stage was made by, for the workspace where it is now: it may have been copied here."""
    words = shlex.split(command)
    if "--work" in words[:-1]:
        words[words.index("--work") + 1] = str(root)
    return shlex.join(words)


def refuse_outdated(manifest: Manifest, stage: str, what: str, root: Path) -> None:
    """Refuse what a stage made from files that have changed since; none where it is not finished.

    Args:
        manifest: of the workspace.
        stage: name of the stage, which is the command's too.
        what: what the stage made.
        root: folder of the workspace.

    Raises:
        InputError: they have changed.
    """
    error = _outdated(manifest, stage, what, root)
    if error is not None:
        raise error


def warn_of_outdated(manifest: Manifest, stage: str, what: str, root: Path, version: str | None = None) -> None:
    """The same line as `refuse_outdated` has, as a warning; ``version``: a saved one, which the manifest is of."""
    error = _outdated(manifest, stage, what, root, version)
    if error is not None:
        _log.warning("%s", error)


def _outdated(manifest: Manifest, stage: str, what: str, root: Path, version: str | None = None) -> InputError | None:
    record = manifest.stages.get(stage)
    changed = outdated_inputs(manifest, stage) if record is not None and record.status == "done" else []
    if record is None or not changed:
        return None
    problem = f"the {what} is of another version of {changed[0]}"
    where = f"{root}@{version}" if version else str(root)
    return InputError(problem, where=where, hint=f"{stage} again: {command_here(record.command, root)}")


def is_current(manifest: Manifest, stage: str, root: Path) -> bool:
    """Whether ``stage`` of the workspace ``root`` is finished, from files that are still the same. Warns if not."""
    record = manifest.stages.get(stage)
    if record is None or record.status != "done":
        return False
    if record.attempt is not None and record.attempt.status != "running":
        _log.warning(
            "%s: a later attempt did not end well (%s); the result of %s is used",
            stage,
            record.attempt.reason,
            record.ended or record.started,
        )
    changed = outdated_inputs(manifest, stage)
    if changed:
        _log.warning(
            "%s was made from another version of %s and is left out. To make it again: %s",
            stage,
            changed[0],
            command_here(record.command, root),
        )
    return not changed


def _hash_of(manifest: Manifest, path: str) -> str | None:
    artifact = manifest.artifacts.get(path)
    return None if artifact is None else artifact.sha256
