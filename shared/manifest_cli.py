"""The ``manifest`` command: look into a workspace, check that it is whole, bring back what another machine added."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from shared.answer import Answer
from shared.cli import FOLDER, json_option, tool_group, workspace_option
from shared.errors import EnvironmentLacks, ManifestError

if TYPE_CHECKING:
    from shared.manifest import Attempt, Manifest, Stage
    from shared.merge import Plan

cli = tool_group("manifest", "Look into a workspace, check that it is whole, and merge what another machine added.")


@cli.command()
@workspace_option
@json_option
def show(work: Path) -> Answer:
    """Show the stages of a workspace, what they made, and what verification and gates say of it.

    Example: manifest show --work work/centerpoint
    """
    from shared.table import Table
    from shared.workspace import Workspace

    manifest = Workspace.open(work).manifest()
    rows: list[list[str]] = []
    for name, stage in sorted(manifest.stages.items(), key=lambda item: item[1].started):
        files = str(len(stage.outputs))
        said = [_status(work, name, stage), _verdict(manifest, stage)]
        rows.append([name, *said, stage.ended or "", stage.host, files, stage.reason or ""])
        if (last := stage.attempt) is not None:
            reason = f"{last.reason}; " if last.reason else ""
            status = _status(work, name, last)
            rows.append(["  last attempt", status, "", last.ended or "", last.host, "", f"{reason}{last.command}"])
    columns = ["stage", "status", "verdict", "ended", "host", "files", "reason"]
    return Answer(Table(f"Stages of {work}", columns, rows).text(), manifest.model_dump(mode="json"))


def _status(work: Path, name: str, recorded: Stage | Attempt) -> str:
    """As recorded; what was killed could not record it."""
    from shared.stages import stage_lock

    killed = recorded.status == "running" and not stage_lock(work, name).is_held()
    return "killed" if killed else recorded.status


def _verdict(manifest: Manifest, stage: Stage) -> str:
    """What a stage judged: `passed` of its results, and of each gate among them; empty where it judged nothing."""
    judged: list[bool] = []
    for result in stage.results:
        kind, _, name = result.partition("/")
        recorded = manifest.results.get(kind, {}).get(name)
        gates = recorded.get("gates") if isinstance(recorded, dict) else None
        verdicts = gates if isinstance(gates, list) else [recorded]
        judged += [each["passed"] is True for each in verdicts if isinstance(each, dict) and "passed" in each]
    if all(judged):
        return "passed" if judged else ""
    return f"FAILED, {judged.count(False)} of {len(judged)}" if len(judged) > 1 else "FAILED"


@cli.command()
@workspace_option
def check(work: Path) -> None:
    """Check every artifact of a workspace against its hash.

    Example: manifest check --work work/centerpoint
    """
    from shared.workspace import Workspace

    workspace = Workspace.open(work)
    artifacts = workspace.manifest().artifacts
    wrong = []
    for relative in sorted(artifacts):
        try:
            workspace.artifact(relative)
        except ManifestError as error:
            wrong.append(str(error))
    for line in wrong:
        click.echo(line, err=True)
    if wrong:
        raise ManifestError(f"{len(wrong)} of {len(artifacts)} artifacts differ from the manifest", where=str(work))
    click.echo(f"{len(artifacts)} artifacts, all as recorded in the manifest")


@cli.command("trust")
@workspace_option
def trust_command(work: Path) -> None:
    """Trust who made a workspace: the programs and engines in it, and what its config names, may run here.

    Only what was made here runs otherwise. Says what it is, and who made it.

    Example: manifest trust --work from-the-vehicle/centerpoint
    """
    from shared.trust import trust

    click.echo(trust(work))


@cli.command("merge")
@workspace_option
@click.argument("others", type=FOLDER, nargs=-1)
@click.option("--prefer", type=click.Choice(["ours", "theirs"]), help="Whose stage to keep where the two differ.")
@click.option("--dry-run", is_flag=True, help="Change nothing; show what would be done.")
def merge_command(
    work: Path, others: tuple[Path, ...], prefer: Literal["ours", "theirs"] | None, dry_run: bool
) -> None:
    """Bring what copies of the workspace gained on other machines back into --work.

    Stages that are done there but not here are taken with their artifacts and results, checked against their hashes.
    Where the two differ, the conflicts are shown and nothing is changed, unless --prefer says whose stages to keep.

    A run whose shards (`runtime run --shard`) are all in --work and the copies named is committed as one. Where shards
    wrote to --work itself, no copy need be named. A run that shards are missing of is left out and named; where there
    is nothing else, that is an error.

    Example: manifest merge --work work/centerpoint back-from-the-vehicle/centerpoint
    """
    from shared.errors import InputError
    from shared.merge import merge
    from shared.shards import commit_shards, plan_shards, was_merged
    from shared.workspace import Workspace

    runs = plan_shards(work, others)
    incomplete = [run for run in runs if run.missing is not None]
    superseded = [run.stage for run in runs if run.missing is None or run.done]
    take = partial(merge, work, prefer=prefer, superseded=superseded)
    if incomplete and not superseded and all(take(other, dry_run=True).changes_nothing for other in others):
        raise ManifestError(
            incomplete[0].problem,
            where=str(work),
            hint="run them, and name every copy of the workspace that has one in one command; nothing was changed",
        )
    plans = [take(other, dry_run=dry_run) for other in others]
    for plan in plans:
        _show_plan(plan, prefer)
    committed = [run for run in runs if run.pieces]
    for run in committed:
        alerts = [] if dry_run else commit_shards(work, run)
        click.echo(f"commit    run {run.name}, from {len(run.pieces)} {'shard' if len(run.pieces) == 1 else 'shards'}")
        for alert in alerts:
            click.echo(f"alert     {alert}")
        for line in run.left_out:
            click.echo(f"leave out {line}")
    for run in incomplete:
        click.echo(f"leave out {run.problem}")
    if not committed and all(plan.changes_nothing for plan in plans):
        if not others and not was_merged(Workspace.open(work).manifest()):
            raise InputError(
                "no shard is here, and no copy is named", where=str(work), hint="runtime run --shard I/N makes one"
            )
        click.echo(f"nothing to take: everything {'else ' if incomplete else ''}is here already")


def _show_plan(plan: Plan, prefer: str | None) -> None:
    """What was taken from a copy, line by line."""
    for conflict in plan.conflicts:
        click.echo(f"conflict  {conflict}" + (f" ({prefer} counts)" if prefer else ""))
    for name in plan.stages:
        click.echo(f"take      stage {name}")
    for path in plan.artifacts:
        click.echo(f"take      {path}")
    for path in plan.removed:
        click.echo(f"remove    {path}")
    for name, reason in plan.left_out.items():
        click.echo(f"leave out stage {name}: {reason}")


@cli.command("plugins")
@click.option("--work", type=FOLDER, help="A workspace: also say which of the packages it was made with are not here.")
@json_option
def plugins_command(work: Path | None) -> Answer:
    """List what other packages add to the tools: group, name, package, version.

    Ends with exit code 4 where something can't be used here, after a line for each that says why.

    Example: manifest plugins
    """
    from shared import plugins
    from shared.added import added, code_digest, packages_of
    from shared.table import Table
    from shared.workspace import Workspace

    entries = [(entry, entry.problem()) for entry in added()]
    ours = {group.short_name: plugins.ours(group) for group in plugins.GROUPS if group.package is not None}
    listed = [
        {
            "group": entry.group.short_name, "name": entry.name, "module": entry.module, "package": entry.package,
            "version": entry.version, "code": code_digest(entry.module), "problem": problem,
        }
        for entry, problem in entries
    ]  # fmt: skip
    rows = [[entry.group.short_name, entry.name, entry.package, entry.version] for entry, _ in entries]
    columns = ["group", "name", "package", "version"]
    lines = [
        Table("Added by other packages", columns, rows).text()
        if rows
        else "No other package adds anything; docs/extending.md shows how one does.",
        f"With the tools: {', '.join(f'{len(names)} {group}' for group, names in ours.items())}",
    ]
    answer = Answer("\n".join(lines), {"added": listed, "ours": ours})
    problems = [problem for _, problem in entries if problem is not None]
    for problem in dict.fromkeys(problems):
        click.echo(problem, err=True)
    if problems:
        raise EnvironmentLacks(f"{len(problems)} of {len(entries)} can't be used here", answer=answer)
    here = {entry.package for entry, _ in entries}
    used = {} if work is None else packages_of(Workspace.open(work).manifest())
    if missing := [f"{name} {version}" for name, version in used.items() if name not in here]:
        raise EnvironmentLacks(
            f"was made with {', '.join(missing)}, not installed here",
            where=str(work),
            hint="make plugins",
            answer=answer,
        )
    return answer


@cli.command()
def schema() -> None:
    """Print the JSON Schema of manifest.json.

    Example: manifest schema
    """
    from shared.manifest import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


@cli.command("tag")
@workspace_option
@click.argument("name")
@click.option("--note", default="", help="A note on this version.")
@click.option("--move", is_flag=True, help="Replace an earlier version of that name.")
def tag_command(work: Path, name: str, note: str, move: bool) -> None:
    """Save what is finished in the workspace as a version, to compare with and to roll back to.

    Artifacts are hard links: a version takes no space until they are replaced.

    Example: manifest tag --work work/centerpoint v1 --note 'before the new heads'
    """
    from shared.versions import tag

    tagged = tag(work, name, note=note, move=move)
    manifest = tagged.version.manifest
    click.echo(f"{name}: {len(manifest.stages)} stages, {len(manifest.artifacts)} artifacts")
    for stage in tagged.left_out:
        click.echo(f"left out, not finished: stage {stage}")


@cli.command("tags")
@workspace_option
@json_option
def tags_command(work: Path) -> Answer:
    """List the versions of a workspace.

    Example: manifest tags --work work/centerpoint
    """
    from shared.table import Table
    from shared.versions import versions
    from shared.workspace import Workspace

    Workspace.open(work)
    found: list[dict[str, Any]] = []
    for version in versions(work):
        artifacts = version.manifest.artifacts.values()
        size = sum({record.sha256: record.bytes for record in artifacts}.values())
        described = {"name": version.name, "created": version.created, "note": version.note}
        found.append({**described, "artifacts": len(artifacts), "bytes": size})
    rows = [
        [each["name"], each["created"][:19], str(each["artifacts"]), f"{each['bytes'] / 1e6:.1f}", each["note"]]
        for each in found
    ]
    columns = ["version", "made (UTC)", "artifacts", "MB", "note"]
    text = Table(f"Versions of {work}", columns, rows).text() if rows else "no versions yet: manifest tag makes one"
    return Answer(text, {"versions": found})


@cli.command("rollback")
@workspace_option
@click.argument("name")
@click.option("--discard", is_flag=True, help="Don't save the current state as a version first.")
def rollback_command(work: Path, name: str, discard: bool) -> None:
    """Restore the artifacts, stages, results, spec and config of a version.

    Every file is checked against its hash first. The current state is saved first, as version before-<time>, unless a
    version holds it already.

    Example: manifest rollback --work work/centerpoint v1
    """
    from shared.versions import rollback

    done = rollback(work, name, discard=discard)
    if done.kept:
        click.echo(f"the state before is kept as version {done.kept}")
    click.echo(f"back at {name}: {len(done.restored)} artifacts restored, {len(done.removed)} removed")


@cli.command("untag")
@workspace_option
@click.argument("name")
def untag_command(work: Path, name: str) -> None:
    """Delete a version, with the files that no other version has.

    Example: manifest untag --work work/centerpoint before-20260101T120000
    """
    from shared.versions import untag

    freed = untag(work, name)
    click.echo(f"{name} is gone, {freed / 1e6:.1f} MB freed")
