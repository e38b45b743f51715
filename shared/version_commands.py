"""Commands on versions of a workspace: ``manifest tag``, ``tags``, ``rollback`` and ``untag``."""

from __future__ import annotations

from pathlib import Path

import click

from shared.cli import workspace_option


@click.command("tag")
@workspace_option
@click.argument("name")
@click.option("--note", default="", help="What to remember of it.")
@click.option("--move", is_flag=True, help="Let an earlier version of that name go.")
def tag_command(work: Path, name: str, note: str, move: bool) -> None:
    """Keep what is finished in the workspace now as a version, to compare with and to go back to.

    Artifacts are hard links: a version takes no space until they are replaced.

    Example: manifest tag --work work/centerpoint v1 --note 'before the new heads'
    """
    from shared.versions import tag

    tagged = tag(work, name, note=note, move=move)
    manifest = tagged.version.manifest
    click.echo(f"{name}: {len(manifest.stages)} stages, {len(manifest.artifacts)} artifacts")
    for stage in tagged.left_out:
        click.echo(f"left out, not finished: stage {stage}")


@click.command("tags")
@workspace_option
def tags_command(work: Path) -> None:
    """List the versions of a workspace.

    Example: manifest tags --work work/centerpoint
    """
    from shared.table import Table
    from shared.versions import versions
    from shared.workspace import Workspace

    Workspace.open(work)
    rows = []
    for version in versions(work):
        artifacts = version.manifest.artifacts.values()
        size = sum({record.sha256: record.bytes for record in artifacts}.values())
        rows.append([version.name, version.created[:19], str(len(artifacts)), f"{size / 1e6:.1f}", version.note])
    columns = ["version", "made (UTC)", "artifacts", "MB", "note"]
    click.echo(
        Table(f"Versions of {work}", columns, rows).text() if rows else "no versions yet: manifest tag makes one"
    )


@click.command("rollback")
@workspace_option
@click.argument("name")
@click.option("--discard", is_flag=True, help="Don't keep what is here now as a version.")
def rollback_command(work: Path, name: str, discard: bool) -> None:
    """Bring back the artifacts, stages, results, spec and config of a version.

    Every file is checked against its hash first. What is here now is kept as a version of its own, before-<time>,
    unless one has it already.

    Example: manifest rollback --work work/centerpoint v1
    """
    from shared.versions import rollback

    done = rollback(work, name, discard=discard)
    if done.kept:
        click.echo(f"what was here is kept as version {done.kept}")
    click.echo(f"back at {name}: {len(done.restored)} artifacts brought back, {len(done.removed)} removed")


@click.command("untag")
@workspace_option
@click.argument("name")
def untag_command(work: Path, name: str) -> None:
    """Let a version go, with the files that no other version has.

    Example: manifest untag --work work/centerpoint before-20260101T120000
    """
    from shared.versions import untag

    freed = untag(work, name)
    click.echo(f"{name} is gone, {freed / 1e6:.1f} MB freed")


COMMANDS = (tag_command, tags_command, rollback_command, untag_command)
