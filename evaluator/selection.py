"""Which runs of a workspace are evaluated, and whether they can be."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.errors import InputError
from shared.manifest import Manifest
from shared.runs import Run
from shared.stages import attempt_folders
from shared.staleness import is_current
from shared.workspace import Workspace

_log = logging.getLogger("evaluator")

if TYPE_CHECKING:
    from shared.config import DeployConfig
    from shared.data import Dataset

#: Folder of the runs in the workspace; the framework reference is elsewhere, and its latency means nothing.
RUNS = "runs"


def finished_runs(workspace: Workspace, config: DeployConfig) -> list[str]:
    """Folders of the finished runs of the backends that the config enables, files checked against their hashes.

    Runs of an earlier export, and those that failed before their first sample (a GPU that is not there), are left out,
    with a warning.

    Raises:
        InputError: there is none, or a run of an enabled backend was started and did not finish.
        ManifestError: a file of a run is missing or was changed.
    """
    manifest = workspace.manifest()
    enabled = {backend for backend, settings in config.evaluation.backends if settings.enabled}
    folders = []
    for path, record in sorted(manifest.artifacts.items()):
        parts = Path(path).parts
        if len(parts) != 3 or parts[0] != RUNS or parts[2] != "run.json" or parts[1].split("-")[0] not in enabled:
            continue
        if is_current(manifest, record.stage, workspace.root):
            folders.append(f"{RUNS}/{parts[1]}")
            for relative in run_files(manifest, folders[-1]):
                workspace.artifact(relative)
    for name, stage in manifest.stages.items():
        kind, _, subject = name.partition(":")
        if kind == "run" and subject.split("-")[0] in enabled and stage.status in ("failed", "running"):
            begun = workspace.path(f"{RUNS}/{subject}").exists() or attempt_folders(workspace.root, f"{RUNS}/{subject}")
            if stage.status == "failed" and not begun:
                _log.warning("run '%s' failed before its first sample and is left out: %s", subject, stage.reason)
                continue
            raise InputError(
                f"run '{subject}' is '{stage.status}', not finished ({stage.reason or 'no reason given'})",
                where=str(workspace.root),
                hint=f"run it again, it continues where it stopped: {stage.command}",
            )
    if not folders:
        raise InputError(
            f"no finished run of {', '.join(sorted(enabled)) or 'any backend'}",
            where=str(workspace.root),
            hint=f"run a backend first: runtime run --backend onnx --work {workspace.root}",
        )
    return folders


def run_files(manifest: Manifest, folder: str) -> list[str]:
    """Artifacts of the run in ``folder`` that the evaluation reads: all but raw outputs."""
    return sorted(path for path in manifest.artifacts if str(Path(path).parent) == folder)


def check_runs(runs: Sequence[Run], dataset: Dataset[Any], workspace: Workspace) -> None:
    """Refuse runs that can't be compared with one another or with the data set.

    Raises:
        InputError: runs of another model, class list or data set, of different samples, or empty.
    """
    spec, digest = workspace.spec(), dataset.digest()
    tokens = [dataset.sample(index).token for index in range(min(len(dataset), max(map(len, runs))))]
    for run in runs:
        header, where = run.header, str(run.folder)
        if not header.tokens:
            raise InputError("the run holds no samples", where=where, hint="run it again on at least one sample")
        if header.tokens != runs[0].header.tokens:
            raise InputError(
                f"its {len(run)} samples are not the {len(runs[0])} of {runs[0].folder.name}",
                where=where,
                hint="run all backends on the same samples",
            )
        if (header.model, header.task, header.classes) != (spec.model, spec.task, list(spec.classes)):
            raise InputError("the run is of another model or class list", where=where, hint="run it again")
        if header.dataset != digest or header.tokens != tokens[: len(header.tokens)]:
            raise InputError(
                f"the run is of other data than data set '{dataset.name}'",
                where=where,
                hint="check data in the config and --data, or run it again",
            )


def run_hashes(workspace: Workspace, folders: Sequence[str]) -> dict[str, str]:
    """Hashes of the files of the runs in ``folders``, by path."""
    manifest = workspace.manifest()
    return {path: manifest.artifacts[path].sha256 for folder in folders for path in run_files(manifest, folder)}
