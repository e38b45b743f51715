"""The ``manifest`` command: look into a workspace, and check that it is whole."""

from __future__ import annotations

import json
from pathlib import Path

import click

from shared.cli import tool_group, workspace_option
from shared.errors import ManifestError

cli = tool_group("manifest", "Look into a workspace: what was made, by whom, from what; and check that it is whole.")


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


@cli.command()
def schema() -> None:
    """Print the JSON Schema of manifest.json.

    Example: manifest schema
    """
    from shared.manifest import json_schema

    click.echo(json.dumps(json_schema(), indent=2))
