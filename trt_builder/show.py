"""What is in an engine, for people: a table of layers, a comparison of two, and a picture of the time per layer.

All of it comes from the record beside the engine, so it needs neither TensorRT nor a GPU.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shared.errors import InputError
from trt_builder.check import read_record

_COLOURS = {"fp32": "#7f8c8d", "fp16": "#2980b9", "bf16": "#8e44ad", "int8": "#27ae60", "fp8": "#16a085"}
_OTHER = "#bdc3c7"
# Layers drawn one by one; the rest share a bar, since nobody reads a picture of a thousand.
_BARS = 60


def record_of(engine: Path) -> dict[str, Any]:
    """The record of an engine.

    Raises:
        InputError: there is none.
    """
    record = read_record(engine)
    if record is None:
        raise InputError(
            "no record beside it", where=str(engine), hint="engines of trt_builder build have one: <engine>.json"
        )
    return record


def table(record: Mapping[str, Any]) -> Iterator[str]:
    """An engine as lines of text."""
    achieved = record["achieved"]
    yield f"{record['component']}: {record['precision_policy']}, {_where(record)}, {record['bytes'] / 1e6:.1f} MB"
    yield f"built in {record['build_seconds']} s"
    if record["engine_memory"] is not None:
        yield f"memory for activations: {record['engine_memory'] / 2**20:.1f} MiB"
    for kind in ("inputs", "outputs"):
        for tensor in record[kind]:
            yield f"{kind[:-1]} {tensor['name']}: {tensor['dtype']} {tensor['shape']}"
    for index, profile in enumerate(record["profiles"]):
        for name, shapes in profile.items():
            yield f"profile {index}, {name}: min {shapes['min']}, opt {shapes['opt']}, max {shapes['max']}"
    for title, key in (
        ("layers", "share_of_layers"),
        ("matrix layers", "share_of_matrix_layers"),
        ("time", "share_of_time"),
    ):
        if achieved.get(key):
            yield f"share of {title}: " + ", ".join(f"{name} {share:.1%}" for name, share in achieved[key].items())
    yield f"reformat layers: {achieved['reformat_layers']}, Q/DQ not fused: {len(achieved['qdq_not_fused'])}"
    times = record["times_ms"] or {}
    yield ""
    yield f"{'ms':>8}  {'precision':9} {'kind':24} layer"
    for layer in record["layers"]:
        time = times.get(layer["name"])
        measured = "" if time is None else f"{time:.4f}"
        yield f"{measured:>8}  {layer['precision'] or '-':9} {layer['kind'][:24]:24} {layer['name']}"


def _where(record: Mapping[str, Any]) -> str:
    title = "TensorRT for RTX" if record["tensorrt"]["flavour"] == "rtx" else "TensorRT"
    return f"{title} {record['tensorrt']['version']} on {record['architecture']}"


def comparison(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    """Two engines side by side: totals, then the matrix nodes that run in another precision."""
    rows = [
        ("policy", first["precision_policy"], second["precision_policy"]),
        ("built for", _where(first), _where(second)),
        ("bytes", first["bytes"], second["bytes"]),
        ("layers", first["achieved"]["layers"], second["achieved"]["layers"]),
        ("reformat layers", first["achieved"]["reformat_layers"], second["achieved"]["reformat_layers"]),
        ("activation memory", first["engine_memory"], second["engine_memory"]),
        ("ms, sum of layers", _total(first), _total(second)),
    ]
    for title, left, right in rows:
        yield f"{title:20} {left!s:40} {right!s}"
    left_nodes, right_nodes = _precision_of_nodes(first), _precision_of_nodes(second)
    for node in left_nodes.keys() & right_nodes.keys():
        if left_nodes[node] != right_nodes[node]:
            yield f"{node}: {left_nodes[node]} | {right_nodes[node]}"


def _total(record: Mapping[str, Any]) -> str:
    return f"{sum(record['times_ms'].values()):.3f}" if record["times_ms"] else "not measured"


def _precision_of_nodes(record: Mapping[str, Any]) -> dict[str, str]:
    return {node: layer["precision"] for layer in record["layers"] for node in layer["nodes"] if layer["precision"]}


def picture(record: Mapping[str, Any]) -> str:
    """Bars of the time per layer, slowest first, coloured by precision, as an SVG.

    Raises:
        InputError: the engine was not timed (built without a GPU).
    """
    times = record["times_ms"]
    if not times:
        raise InputError(
            "no times in its record",
            where=str(record["component"]),
            hint="engines are timed where they are built on a GPU",
        )
    precision = {layer["name"]: layer["precision"] for layer in record["layers"]}
    bars = sorted(times.items(), key=lambda item: -item[1])
    if len(bars) > _BARS:
        rest = sum(time for _, time in bars[_BARS:])
        bars = [*bars[:_BARS], (f"{len(bars) - _BARS} more layers", rest)]
    longest, height = max(time for _, time in bars), 16
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="1100" height="{height * len(bars) + 50}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="10" y="18" font-size="14">{html.escape(record["component"])}: {record["precision_policy"]}, '
        f"{_where(record)}, {sum(times.values()):.3f} ms in all layers</text>",
    ]
    for index, (name, time) in enumerate(bars):
        top = 30 + index * height
        colour = _COLOURS.get(precision.get(name, ""), _OTHER)
        width = max(1.0, 380 * time / longest)
        lines.append(f'<rect x="10" y="{top}" width="{width:.1f}" height="{height - 3}" fill="{colour}"/>')
        label = name if len(name) <= 90 else name[:87] + "..."
        text = html.escape(f"{time:.4f} ms  {precision.get(name) or ''}  {label}")
        lines.append(f'<text x="{16 + width:.1f}" y="{top + 10}">{text}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"
