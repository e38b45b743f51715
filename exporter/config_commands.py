"""``exporter config``: show, convert and start deploy configs, and the schema that editors use."""

from __future__ import annotations

import json
from pathlib import Path

import click

import shared
from exporter.pipelines import SERVICES, write_pipeline
from shared import plugins
from shared.cli import FILE, config_option, force_option
from shared.errors import UsageError
from shared.files import write_text

# The folder by its path: importing shared.config would make --help slow.
TEMPLATES = sorted(path.stem for path in (Path(shared.__file__).parent / "config/templates").glob("*.yaml"))


@click.group(name="config")
def config_group() -> None:
    """Show, convert and start deploy configs."""


def _known_type(_context: click.Context, _option: click.Parameter, name: str | None) -> str | None:
    """``--type`` as it is, where there is such a model. Raises UsageError: there is none."""
    if name is not None and name not in (known := plugins.available(plugins.EXPORTER_MODELS)):
        hint = f"there are: {', '.join(known)}; `make plugins` adds those of packages/"
        raise UsageError(f"--type {name}: there is no such model", hint=hint)
    return name


_type_option = click.option(
    "--type",
    "model_type",
    metavar="NAME",
    callback=_known_type,
    help="The model that AWML's file is for, where the file does not say. `exporter models` lists them.",
)


@config_group.command()
@config_option
@_type_option
@click.option("--section", multiple=True, help="Show this section only, for example export. Repeatable.")
def show(config: Path, overrides: tuple[str, ...], model_type: str | None, section: tuple[str, ...]) -> None:
    """Check a config and show what it means: overrides applied, defaults filled in, paths absolute.

    Example: exporter config show --config configs/centerpoint.yaml --set export.mode=onnx --section export
    """
    from shared.config import load_config, resolved
    from shared.config.problems import suggestion
    from shared.config.write import to_yaml

    given = () if model_type is None else (f"model.type={model_type}",)
    values = resolved(load_config(config, (*overrides, *given)))
    for name in section:
        if name not in values:
            raise UsageError(f"--section {name}: there is no such section", hint=suggestion(name, list(values)))
    shown = {name: value for name, value in values.items() if not section or name in section}
    click.echo(to_yaml(shown), nl=False)


@config_group.command()
@click.argument("source", type=FILE)
@click.option("--out", type=FILE, required=True, help="The YAML file to write.")
@_type_option
@force_option
def convert(source: Path, out: Path, model_type: str | None, force: bool) -> None:
    """Convert a deploy_config.py of AWML or mmdeploy to YAML. SOURCE is read without being executed.

    What became of each key that has another name or meaning here is reported, and noted in the file as a comment.

    Example: exporter config convert deploy_config.py --out configs/my_model.yaml
    """
    from shared.config.convert import convert_awml

    _refuse_to_overwrite(out, force)
    text, notes = convert_awml(source, out, model_type)
    write_text(out, text)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"{out}: written")


@config_group.command()
@click.option("--out", type=FILE, help="Write to this file instead of the screen.")
def schema(out: Path | None) -> None:
    """Print the JSON Schema of the deploy config, for editors that complete and check YAML.

    Example: exporter config schema --out config.schema.json
    """
    from shared.config.schema import json_schema

    text = json.dumps(json_schema(), indent=2) + "\n"
    if out is None:
        click.echo(text, nl=False)
    else:
        write_text(out, text)
        click.echo(f"{out}: written")


@config_group.command()
@click.argument("model", type=click.Choice(TEMPLATES))
@click.option("--out", type=FILE, help="The file to write; by default MODEL.yaml.")
@click.option(
    "--ci",
    "service",
    type=click.Choice(SERVICES),
    help="Also write a pipeline into this folder, the root of the model's repository (docs/ci.md). Files that are "
    "there stay as they are; --force writes the pipeline's anew.",
)
@force_option
def init(model: str, out: Path | None, service: str | None, force: bool) -> None:
    """Write a commented deploy config to start from, for MODEL.

    Example: exporter config init centerpoint --out configs/my_model.yaml
    """
    from shared.config.convert import template

    path = Path(f"{model}.yaml") if out is None else out
    if service is None:
        _refuse_to_overwrite(path, force)
    if service is None or not path.exists():
        write_text(path, template(model).replace("THIS_FILE", str(path)))
        click.echo(f"{path}: written; put your paths into its sections model and data")
    if service is not None:
        for file, written in write_pipeline(service, path, Path.cwd(), force):
            click.echo(f"{file}: {'written; its first lines say what to set' if written else 'kept, as it is there'}")


def _refuse_to_overwrite(path: Path, force: bool) -> None:
    """Raises UsageError when the file is there and the user did not say --force."""
    if path.exists() and not force:
        raise UsageError("is there already", where=str(path), hint="choose another name with --out, or say --force")
