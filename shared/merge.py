"""`manifest merge`: bring back what another machine added to a copy of a workspace.

A workspace travels to a device as a folder (rsync, tar), a tool works there, and the copy comes back. The unit is the
stage: a stage that is done there and not here comes along, with its artifacts (checked against their hashes), its
results and, for the export, model spec and config. Nothing here is overwritten unless the caller says whose word
counts:

====================  ==================  =============================================================================
here                  there               what happens
====================  ==================  =============================================================================
nothing               done, skipped       taken
skipped, failed       done                taken
done                  skipped, failed     kept
done                  done, same result   kept
done                  done, differs       conflict
anything              made from inputs    conflict: it is about another model
                      that differ here
====================  ==================  =============================================================================
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from shared import trust
from shared.errors import ManifestError, UsageError
from shared.files import copy_flushed, explain_os_errors
from shared.manifest import MANIFEST_NAME, Artifact, Manifest, Stage, clean_up, switch_of, update_manifest
from shared.stages import hold_stages, staged_files
from shared.workspace import Workspace

Side = Literal["ours", "theirs"]

# The stage that records model spec and config.
_EXPORT = "export"


@dataclass(frozen=True)
class Conflict:
    """Something that both sides have, and that differs."""

    what: str
    ours: str
    theirs: str

    def __str__(self) -> str:
        return f"{self.what}: here {self.ours}; there {self.theirs}"


@dataclass
class Plan:
    """What a merge would do.

    Attributes:
        stages: stages to take, with all that belongs to them.
        artifacts: paths to copy.
        removed: paths that go, because the stage that made them is replaced.
        left_out: stages of theirs that stay there, with the reason.
        conflicts: what must be decided; with a preference given, what was decided by it.
        config: whether model spec and config are taken.
    """

    stages: list[str] = field(default_factory=list)
    artifacts: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    conflicts: list[Conflict] = field(default_factory=list)
    config: bool = False

    @property
    def changes_nothing(self) -> bool:
        """Whether everything of theirs is here already."""
        return not self.stages and not self.config


def plan_merge(ours: Manifest, theirs: Manifest, prefer: Side | None = None, superseded: Collection[str] = ()) -> Plan:
    """What taking over from ``theirs`` means for ``ours``; no ``prefer``: conflicts stay open; stages that are
    ``superseded`` are not looked at. Reads no files."""
    plan = Plan()
    for name, stage in theirs.stages.items():
        decision = "keep" if name in superseded else _decide(ours, theirs, name)
        if decision == "conflict":
            plan.conflicts.append(Conflict(f"stage {name}", _summary(ours.stages[name]), _summary(stage)))
            decision = "take" if prefer == "theirs" else "keep"
        if decision == "take":
            plan.stages.append(name)
        elif decision != "keep":
            plan.left_out[name] = decision
    _leave_out_what_does_not_fit(plan, ours, theirs, prefer)
    _add_belongings(plan, ours, theirs, prefer)
    return plan


def merge(
    work: Path,
    other: Path,
    *,
    prefer: Side | None = None,
    superseded: Collection[str] = (),
    dry_run: bool = False,
) -> Plan:
    """Bring what the copy ``other`` has and ``work`` lacks into ``work``: all of it or nothing. ``other`` is only read.

    Args:
        work, other: workspaces.
        prefer: whose word counts where both have something and it differs.
        superseded: stages of ``other`` that count for nothing: ``work`` has, or gets, a later result.
        dry_run: change nothing.

    Raises:
        UsageError: both are the same folder.
        ManifestError: conflicts and no preference; a file of theirs is missing or changed; a stage is running here.
        EnvironmentLacks: the disk is full or read-only.
    """
    mine, copy = Workspace.open(work), Workspace.open(other)
    if work.samefile(other):
        raise UsageError("is the workspace itself", where=str(other), hint="name the copy that came back")
    if not dry_run:
        clean_up(work / MANIFEST_NAME)
    theirs = copy.manifest()
    _check_results(theirs, other)
    plan = plan_merge(mine.manifest(), theirs, prefer, superseded)
    if dry_run:
        return plan
    if plan.conflicts and prefer is None:
        conflicts = "; ".join(str(conflict) for conflict in plan.conflicts)
        raise ManifestError(
            f"{len(plan.conflicts)} conflicts, nothing was changed: {conflicts}", where=str(work),
            hint="say whose word counts, for all of them: --prefer ours or --prefer theirs",
        )  # fmt: skip
    if plan.changes_nothing:
        return plan

    def take(manifest: Manifest) -> None:
        if plan_merge(manifest, theirs, prefer, superseded) != plan:
            raise ManifestError("another tool changed the workspace meanwhile", where=str(work), hint="merge again")
        for relative in plan.removed:
            manifest.artifacts.pop(relative, None)
        _write_records(manifest, theirs, plan)
        manifest.switch = switch_of(work, staged, plan.removed)

    sources = {relative: copy.artifact(relative) for relative in plan.artifacts}
    with hold_stages(work, plan.stages), staged_files(work, sources, copy_flushed) as staged, explain_os_errors(work):
        for relative, unfinished in staged.items():
            if not theirs.artifacts[relative].describes(unfinished.checked()):
                raise ManifestError("changed while it was copied", where=f"{other}/{relative}", hint="merge again")
        update_manifest(work / MANIFEST_NAME, take)
    return plan


def _check_results(theirs: Manifest, where: Path) -> None:
    """Raises ManifestError where a stage recorded results that the manifest does not have."""
    for name, stage in theirs.stages.items():
        for kind, _, result in (entry.partition("/") for entry in stage.results):
            if stage.status == "done" and result not in theirs.results.get(kind, {}):
                raise ManifestError(
                    f"stage '{name}' recorded the result {kind}/{result}, which is missing",
                    where=f"{where}/{MANIFEST_NAME}",
                    hint="nothing was merged; copy the workspace again",
                )


# -- planning ---------------------------------------------------------------------------------------------------------


def _decide(ours: Manifest, theirs: Manifest, name: str) -> str:
    """``take``, ``keep``, ``conflict``, or why the stage is left there."""
    there, here = theirs.stages[name], ours.stages.get(name)
    if there == here and _files(theirs, there) == _files(ours, here):
        return "keep"
    if there.status == "done":
        if here is None or here.status != "done":
            return "take"
        same = there.fingerprint == here.fingerprint and _files(theirs, there) == _files(ours, here)
        return "keep" if same else "conflict"
    if here is not None:
        return "keep"
    return "take" if there.status == "skipped" else f"it is '{there.status}' there"


def _files(manifest: Manifest, stage: Stage) -> dict[str, str]:
    return {path: manifest.artifacts[path].sha256 for path in stage.outputs if path in manifest.artifacts}


def _leave_out_what_does_not_fit(plan: Plan, ours: Manifest, theirs: Manifest, prefer: Side | None) -> None:
    """Leave stages out whose inputs or file names clash with what is here; repeat, as stages build on one another."""
    while True:
        checked = [(name, _obstacle(plan, ours, theirs, name, prefer)) for name in plan.stages]
        obstacles = [(name, conflict) for name, conflict in checked if conflict is not None]
        if not obstacles:
            return
        for name, conflict in obstacles:
            plan.stages.remove(name)
            plan.left_out[name] = f"here {conflict.ours}; there {conflict.theirs}"
            if prefer is None:
                plan.conflicts.append(conflict)


def _obstacle(plan: Plan, ours: Manifest, theirs: Manifest, name: str, prefer: Side | None) -> Conflict | None:
    """Why a stage can't be taken, if anything: it would not fit to the files of the merged workspace."""
    taken: list[Artifact] = [theirs.artifacts[p] for n in plan.stages for p in _files(theirs, theirs.stages[n])]
    kept = [record for record in ours.artifacts.values() if record.stage not in plan.stages]
    merged = {record.sha256 for record in [*taken, *kept]}
    path_there = {record.sha256: path for path, record in theirs.artifacts.items()}
    inputs: dict[str, Any] = theirs.stages[name].key.get("inputs", {})
    for sha256 in inputs.values():
        if sha256 in path_there and sha256 not in merged:
            path = path_there[sha256]
            return Conflict(f"stage {name}", f"is another {path}", f"the stage was made from its own {path}")
    for path, sha256 in _files(theirs, theirs.stages[name]).items():
        mine = ours.artifacts.get(path)
        if mine is not None and mine.sha256 != sha256 and mine.stage not in plan.stages and prefer != "theirs":
            return Conflict(f"stage {name}", f"{path} is made by stage {mine.stage}", f"by stage {name}")
    return None


def _add_belongings(plan: Plan, ours: Manifest, theirs: Manifest, prefer: Side | None) -> None:
    """Artifacts, results, spec and config of the stages that are taken."""
    for name in plan.stages:
        files = _files(theirs, theirs.stages[name])
        previous = ours.stages.get(name)
        plan.removed += [path for path in (previous.outputs if previous else []) if path not in files]
        for path, sha256 in files.items():
            mine = ours.artifacts.get(path)
            if mine is None or mine.sha256 != sha256:
                plan.artifacts.append(path)
    plan.config = _EXPORT in plan.stages or (ours.spec is None and theirs.spec is not None)
    if not plan.config and theirs.config is not None and ours.config != theirs.config:
        plan.conflicts.append(Conflict("config", "the config of this workspace", "another one"))
        plan.config = prefer == "theirs"


def _summary(stage: Stage) -> str:
    return f"{stage.status} {stage.ended or stage.started} on {stage.host}"


# -- doing ------------------------------------------------------------------------------------------------------------


def _write_records(manifest: Manifest, theirs: Manifest, plan: Plan) -> None:
    before = manifest.model_copy(update={"artifacts": dict(manifest.artifacts)})
    for name in plan.stages:
        stage, previous = theirs.stages[name], manifest.stages.get(name)
        for kind, _, result in (entry.partition("/") for entry in (previous.results if previous else [])):
            manifest.results.get(kind, {}).pop(result, None)
        for path in _files(theirs, stage):
            manifest.artifacts[path] = theirs.artifacts[path]
        for kind, _, result in (entry.partition("/") for entry in stage.results):
            manifest.results.setdefault(kind, {})[result] = theirs.results[kind][result]
        manifest.stages[name] = stage.model_copy(update={"attempt": None})
    if plan.config:
        manifest.spec, manifest.config = theirs.spec, theirs.config
    manifest.seals = trust.seals_of(manifest, theirs, before)
