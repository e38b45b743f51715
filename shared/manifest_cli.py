"""The ``manifest`` command: look into a workspace, check that it is whole, bring back what another machine added."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import click

from shared.cli import tool_group, workspace_option
from shared.errors import ManifestError
from shared.version_commands import COMMANDS

cli = tool_group("manifest", "Look into a workspace, check that it is whole, and merge what another machine added.")
for command in COMMANDS:
    cli.add_command(command)


@cli.command()
@workspace_option
@click.option("--json", "as_json", is_flag=True, help="The whole manifest as JSON.")
def show(work: Path, as_json: bool) -> None:
    """Show the stages of a workspace and what they made.

    Example: manifest show --work work/centerpoint
    """
    from rich.console import Console
    from rich.table import Table

    from shared.workspace import Workspace

    manifest = Workspace.open(work).manifest()
    if as_json:
        click.echo(manifest.model_dump_json(indent=2))
        return
    table = Table("stage", "status", "ended", "host", "outputs", "reason")
    for name, stage in sorted(manifest.stages.items(), key=lambda item: item[1].started):
        outputs = f"{len(stage.outputs)} files" if stage.outputs else ""
        table.add_row(name, stage.status, stage.ended or "", stage.host, outputs, stage.reason or "")
    Console().print(table)


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
        raise ManifestError(f"{len(wrong)} of {len(artifacts)} artifacts are not what they should be", where=str(work))
    click.echo(f"{len(artifacts)} artifacts, all as the manifest says")


@cli.command("merge")
@workspace_option
@click.argument("other", type=click.Path(path_type=Path, file_okay=False))
@click.option("--prefer", type=click.Choice(["ours", "theirs"]), help="Whose stage counts where both sides differ.")
@click.option("--dry-run", is_flag=True, help="Change nothing; show what would be done.")
def merge_command(work: Path, other: Path, prefer: Literal["ours", "theirs"] | None, dry_run: bool) -> None:
    """Bring what a copy of the workspace gained on another machine back into --work.

    Stages that are done there and not here come along with their artifacts and results, checked against their hashes.
    Where both sides differ, the conflicts are shown and nothing is changed, unless --prefer says whose word counts.

    Example: manifest merge --work work/centerpoint back-from-the-vehicle/centerpoint
    """
    from shared.merge import merge

    plan = merge(work, other, prefer=prefer, dry_run=dry_run)
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
    if plan.changes_nothing:
        click.echo("nothing to take: all of it is here")


@cli.command()
def schema() -> None:
    """Print the JSON Schema of manifest.json.

    Example: manifest schema
    """
    from shared.manifest import json_schema

    click.echo(json.dumps(json_schema(), indent=2))
