"""Section: the contents of the TensorRT engines, layer by layer, from the records beside them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluator.report.blocks import Block, Cell, Details, Grid, Heading, Section, Text
from evaluator.report.material import Material
from evaluator.report.tasks import TaskReport
from shared.json_reader import read_json
from shared.plan import flavor_of
from shared.staleness import outdated_inputs
from shared.table import MISSING

_KIND = "engine-record"
_SERIES: Mapping[str, int] = {"fp32": 7, "fp16": 0, "bf16": 3, "int8": 2, "fp8": 4}
_OTHER = 7
# Layers that are shown from the start; a click shows the others, up to the number that anybody reads.
_SHOWN, _MOST = 15, 200


def section(material: Material, _: TaskReport | None) -> Section | None:
    """One part per engine; None without engines."""
    blocks: list[Block] = []
    for path, record in sorted(material.manifest.artifacts.items()):
        if record.kind != _KIND or material.manifest.stages[record.stage].status != "done":
            continue
        engine = read_json(material.workspace.artifact(path))
        blocks += _engine(Path(path).parent.name, engine)
        if outdated_inputs(material.manifest, record.stage):
            command = material.manifest.stages[record.stage].command
            blocks.append(
                Text(
                    f"This engine was built from an ONNX file that has changed since. To rebuild it: {command}",
                    "bad",
                )
            )
    return Section("engines", "Engines", blocks) if blocks else None


def _engine(target: str, record: dict[str, Any]) -> list[Block]:
    where = (
        f"TensorRT {record['tensorrt']['version']}"
        if flavor_of(record) != "rtx"
        else (f"TensorRT for RTX {record['tensorrt']['version']}")
    )
    device = record["gpu"]["name"] if record["gpu"] else record["architecture"]
    size = f"{record['bytes'] / 1e6:.1f} MB"
    facts = f"{record['precision_policy']}, {where}, {device}, {size}"
    times: dict[str, float] = record["times_ms"] or {}
    blocks: list[Block] = [Heading(f"{record['component']} ({target})"), Text(facts), _precisions(record, times)]
    layers = record["layers"]
    if times:
        layers = sorted(layers, key=lambda layer: -times.get(layer["name"], 0.0))
        title = f"Layers of {record['component']} by time, {sum(times.values()):.3f} ms in all"
    else:
        blocks.append(Text("The layers were not timed: engines are timed where they are built on a GPU.", "muted"))
        title = f"Layers of {record['component']} in their order"
    blocks.append(_layers(title, layers[:_SHOWN], times))
    if len(layers) > _SHOWN:
        rest = layers[_SHOWN:_MOST]
        beyond = f", the other {len(layers) - _MOST} are in its record" if len(layers) > _MOST else ""
        name = f"{len(rest)} more layers of {record['component']}{beyond}"
        blocks.append(Details(name, [_layers(name, rest, times)]))
    return blocks


def _precisions(record: dict[str, Any], times: Mapping[str, float]) -> Grid:
    """Layers and their time by the type that they compute in."""
    counts = Counter(layer["precision"] or "unknown" for layer in record["layers"])
    spent: dict[str, float] = defaultdict(float)
    for layer in record["layers"]:
        spent[layer["precision"] or "unknown"] += times.get(layer["name"], 0.0)
    whole = sum(spent.values())
    rows = []
    for name, count in sorted(counts.items(), key=lambda item: (-spent[item[0]], -item[1])):
        share = spent[name] / whole if whole else count / len(record["layers"])
        bar = Cell(f"{share:.1%}", share=share, series=_SERIES.get(name, _OTHER))
        rows.append([name, bar, str(count), f"{spent[name]:.3f}" if whole else MISSING])
    of = "time" if whole else "layers"
    return Grid(f"Precision of {record['component']}", ["precision", f"share of {of}", "layers", "ms"], rows)


def _layers(title: str, layers: list[dict[str, Any]], times: Mapping[str, float]) -> Grid:
    slowest = max((times.get(layer["name"], 0.0) for layer in layers), default=0.0)
    rows = []
    for layer in layers:
        time = times.get(layer["name"])
        series = _SERIES.get(layer["precision"], _OTHER)
        bar = (
            Cell(MISSING)
            if time is None
            else Cell(f"{time:.4f}", share=time / slowest if slowest else 0.0, series=series)
        )
        rows.append([_short(layer["name"]), bar, layer["precision"] or MISSING, layer["kind"]])
    return Grid(title, ["layer", "ms", "precision", "kind"], rows)


def _short(name: str, most: int = 80) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
