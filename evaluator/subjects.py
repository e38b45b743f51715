"""The subjects of a comparison: evaluated runs of a workspace as it is now or of one of its versions.

A subject reads ``[WORKSPACE][@VERSION][:RUN]``; without a run it stands for every evaluated one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluator.metrics import find_metric
from evaluator.stored import STAGE, Replicates, stored_evaluations, stored_replicates
from shared.errors import InputError, UsageError
from shared.manifest import Manifest
from shared.precision import precision_in
from shared.runs import read_header
from shared.staleness import warn_of_outdated
from shared.versions import KeptWorkspace, read_version
from shared.workspace import Workspace

_SUBJECT = re.compile(r"(?P<folder>[^@]*?)(?:@(?P<version>[^@:/]+))?(?::(?P<run>[^@:/]+))?")


@dataclass(frozen=True)
class Subject:
    """An evaluated run.

    Attributes:
        label: what it is called in a table.
        workspace, version, run: where it is from; version None: the workspace as it is.
        created: when the version was made, or the evaluation ended; ISO 8601.
        task: of the model.
        evaluation: as `evaluator.evaluate` stored it.
        replicates: behind the intervals of its headline numbers.
        precision: the precision policy of the run.
        model_bytes: size of the model files that it ran; None where the run does not name them.
    """

    label: str
    workspace: Path
    version: str | None
    run: str
    created: str
    task: str
    evaluation: dict[str, Any]
    replicates: Replicates
    precision: str
    model_bytes: int | None

    def per_class(self) -> dict[str, dict[str, float | None]]:
        """The metric's numbers by class; empty where the data had no labels."""
        metrics = self.evaluation["metrics"]
        return {} if metrics is None else find_metric(self.task).per_class(metrics)


def find_subjects(texts: Sequence[str], work: Path | None) -> list[Subject]:
    """The subjects that ``texts`` name, in order.

    Args:
        texts: ``[WORKSPACE][@VERSION][:RUN]`` each.
        work: the workspace of those that name none.

    Raises:
        UsageError: a text that names nothing, or two that name the same.
        InputError: not evaluated, or evaluated by another version of the evaluator.
    """
    named: dict[tuple[str, str | None, str], Subject] = {}
    several = len({os.path.realpath(_split(text, work)[0]) for text in texts}) > 1
    for text in texts:
        folder, version, run = _split(text, work)
        for subject in subjects_of(folder, version, run, several=several):
            key = (os.path.realpath(folder), version, subject.run)
            if key in named:
                raise UsageError(f"{subject.label} is named twice", where=text)
            named[key] = subject
    return list(named.values())


def subjects_of(folder: Path, version: str | None, run: str | None, *, several: bool = False) -> list[Subject]:
    """The evaluated runs of a workspace or of one of its versions. Warns where the runs were made again since.

    Args:
        folder: the workspace.
        version: name of the version; None: as it is now.
        run: only this one.
        several: whether there are several workspaces, so that labels name theirs.

    Raises:
        UsageError: no such version or run.
        InputError: nothing is evaluated there.
    """
    workspace = Workspace.open(folder)
    source = workspace if version is None else KeptWorkspace(folder, read_version(folder, version))
    manifest = source.manifest()
    place = str(folder) if version is None else f"{folder}@{version}"
    evaluations = stored_evaluations(source)
    if not evaluations or manifest.spec is None:
        raise InputError("nothing is evaluated here", where=place, hint=f"evaluator evaluate --work {folder}")
    if run is not None and run not in evaluations:
        raise UsageError(f"no evaluated run '{run}'", where=place, hint=f"there are: {', '.join(evaluations)}")
    warn_of_outdated(manifest, STAGE, "evaluation", folder, version)
    prefix = (str(folder) if several else "") + (f"@{version}" if version else "")
    stage = manifest.stages[STAGE]
    return [
        Subject(
            label=f"{prefix}:{name}" if prefix else name,
            workspace=folder,
            version=version,
            run=name,
            created=source.version.created if isinstance(source, KeptWorkspace) else stage.ended or stage.started,
            task=manifest.spec.task,
            evaluation=evaluation,
            replicates=stored_replicates(source, name),
            precision=_precision(source, name),
            model_bytes=_model_bytes(manifest, name),
        )
        for name, evaluation in evaluations.items()
        if run in (None, name)
    ]


def _split(text: str, work: Path | None) -> tuple[Path, str | None, str | None]:
    if Path(text).is_dir():
        return Path(text), None, None
    match = _SUBJECT.fullmatch(text)
    if match is None or not text:
        raise UsageError(f"'{text}' names nothing", hint="write WORKSPACE, WORKSPACE@VERSION, or WORKSPACE:RUN")
    folder = Path(match["folder"]) if match["folder"] else work
    if folder is None:
        raise UsageError(f"'{text}' names no workspace", hint="put one before it, or give --work")
    return folder, match["version"], match["run"]


def _precision(source: Workspace | KeptWorkspace, run: str) -> str:
    return precision_in(read_header(source.artifact(f"runs/{run}/run.json")), source.manifest().config or {})


def _model_bytes(manifest: Manifest, run: str) -> int | None:
    """Bytes of the artifacts that the run was made from."""
    stage = manifest.stages.get(f"run:{run}")
    inputs = stage.key.get("inputs", {}) if stage is not None else {}
    sizes = [manifest.artifacts[path].bytes for path in inputs if path in manifest.artifacts]
    return sum(sizes) if sizes else None
