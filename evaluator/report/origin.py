"""Section: how it was made: stages, commands, machines, versions, hashes, the model spec and the config."""

from __future__ import annotations

import datetime
import json

from evaluator.report.blocks import Block, Cell, Code, Details, Grid, Section
from evaluator.report.material import OWN_STAGE, Material
from evaluator.report.tasks import TaskReport
from shared.manifest import Manifest, Stage
from shared.staleness import outdated_inputs
from shared.table import MISSING

_TONES = {"done": "good", "failed": "bad"}
# Artifacts that something loads; files of runs and reports are only counted.
_MODELS = ("onnx", "program", "engine", "engine-record", "timing-cache", "calibration")


def section(material: Material, _: TaskReport | None) -> Section:
    """Stages and files are shown from the start, the rest on a click."""
    manifest = material.manifest
    stages = sorted(
        ((name, stage) for name, stage in manifest.stages.items() if name != OWN_STAGE),
        key=lambda item: item[1].started,
    )
    blocks: list[Block] = [_stages(manifest, stages), _commands(stages), _artifacts(manifest)]
    blocks.append(Details("Versions of packages, by stage", [_versions(stages)]))
    blocks.append(Details("What the stages read, with hashes", [_inputs(stages)]))
    blocks.append(Details("The model: components and tensors", [_components(material)]))
    if manifest.config is not None:
        blocks.append(Details("The deploy config", [Code(json.dumps(manifest.config, indent=1, sort_keys=True))]))
    return Section("origin", "How it was made", blocks)


def _stages(manifest: Manifest, stages: list[tuple[str, Stage]]) -> Grid:
    rows: list[list[str | Cell]] = []
    for name, stage in stages:
        outdated = stage.status == "done" and bool(outdated_inputs(manifest, name))
        status = Cell("done, outdated", "bad") if outdated else Cell(stage.status, _TONES.get(stage.status, "muted"))
        gpu = f"{stage.gpu}, driver {stage.driver}" if stage.gpu else MISSING
        rows.append(
            [name, status, stage.started.replace("T", " ").removesuffix("+00:00"), _seconds(stage),
             f"{stage.tool} {stage.tool_version}", stage.host, gpu, stage.image or MISSING, stage.reason or ""]
        )  # fmt: skip
    columns = ["stage", "status", "started (UTC)", "seconds", "tool", "host", "GPU", "image", "reason"]
    return Grid("Stages", columns, rows)


def _seconds(stage: Stage) -> str:
    if stage.ended is None:
        return MISSING
    took = datetime.datetime.fromisoformat(stage.ended) - datetime.datetime.fromisoformat(stage.started)
    return f"{took.total_seconds():.0f}"


def _commands(stages: list[tuple[str, Stage]]) -> Grid:
    return Grid("Commands", ["stage", "command"], [[name, stage.command] for name, stage in stages])


def _artifacts(manifest: Manifest) -> Grid:
    loaded = {path: record for path, record in sorted(manifest.artifacts.items()) if record.kind in _MODELS}
    rows = [
        [path, record.kind, f"{record.bytes / 1e6:.2f}", record.sha256[:16], record.stage]
        for path, record in loaded.items()
    ]
    others = sum(1 for record in manifest.artifacts.values() if record.stage != OWN_STAGE) - len(loaded)
    title = f"Models ({others} more files are in manifest.json)"
    return Grid(title, ["file", "kind", "MB", "sha256, first 16 digits", "stage"], rows)


def _versions(stages: list[tuple[str, Stage]]) -> Grid:
    rows = [
        [name, package, str(version)]
        for name, stage in stages
        for package, version in sorted(stage.key.get("versions", {}).items())
    ]
    return Grid("Versions", ["stage", "package", "version"], rows)


def _inputs(stages: list[tuple[str, Stage]]) -> Grid:
    rows = []
    for name, stage in stages:
        rows.append([name, "this tool's own code", str(stage.key.get("code", MISSING))[:16]])
        # Traces and swaps read hundreds of files of the workspace, which have their hashes in the manifest.
        outside = {key: value for key, value in stage.key.get("inputs", {}).items() if "/" not in key or "onnx" in key}
        rows += [[name, key, str(value)[:16]] for key, value in sorted(outside.items())]
    return Grid("Inputs", ["stage", "what", "sha256, first 16 digits"], rows)


def _components(material: Material) -> Grid:
    rows = [
        [component.name, side, tensor.name, tensor.dtype, " x ".join(str(size) for size in tensor.shape)]
        for component in material.spec.components
        for side, tensors in (("input", component.inputs), ("output", component.outputs))
        for tensor in tensors
    ]
    return Grid("Tensors", ["component", "side", "tensor", "type", "shape"], rows)
