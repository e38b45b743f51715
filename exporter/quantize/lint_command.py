"""``exporter quantize lint``."""

from __future__ import annotations

from pathlib import Path

import click

from shared.errors import ExportError, InputError
from shared.lazy import lazy_import

onnx = lazy_import("onnx")


@click.command("lint")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--exclude",
    "excluded",
    multiple=True,
    metavar="REGEX",
    help="Names of nodes or layers that must not be quantized. Repeatable.",
)
def lint_command(file: Path, excluded: tuple[str, ...]) -> None:
    """Find misplaced Q/DQ nodes in an ONNX file, whoever made it. The export runs this on every quantized graph.

    One line a finding: the node, and what TensorRT would make of it. Exit code 5 when there are any.

    Example: exporter quantize lint work/centerpoint-int8/onnx/pts_backbone_neck_head.onnx
    """
    from exporter.quantize.lint import lint, quantized_nodes

    # Protobuf's DecodeError lives in a package that is not ours to import; it is what is left of Exception here.
    try:
        model = onnx.load(str(file), load_external_data=True)
    except Exception as error:
        raise InputError(f"not a whole ONNX file ({str(error).splitlines()[0]})", where=str(file)) from error
    quantized, others = quantized_nodes(model)
    findings = lint(model, excluded)
    if not quantized and not findings:
        raise InputError("has no quantized node", where=str(file), hint="export it with quantization.enabled: true")
    for finding in findings:
        click.echo(finding)
    click.echo(
        f"{len(quantized)} of {len(quantized) + len(others)} matrix nodes are quantized, {len(findings)} findings"
    )
    if findings:
        raise ExportError(f"{len(findings)} Q/DQ nodes are misplaced", where=file.name)
