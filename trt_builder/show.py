"""What is in an engine, for people: a table of layers, a comparison of two, and a picture of the time per layer.

All of it comes from the record beside the engine, so it needs neither TensorRT nor a GPU.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from shared.errors import InputError
from shared.plan import flavor_of
from shared.table import MISSING, Table
from trt_builder.compat import TITLES
from trt_builder.loadable import read_record
from trt_builder.target import PORTABLE

_COLORS = {"fp32": "#7f8c8d", "fp16": "#2980b9", "bf16": "#8e44ad", "int8": "#27ae60", "fp8": "#16a085"}
_OTHER = "#bdc3c7"
# Layers drawn one by one; the rest share a bar, since nobody reads a picture of a thousand.
_BARS = 60
# Height of a bar with its gap [px], and characters of a name that fit beside it, or on a line of the table.
_ROW, _LABEL = 16, 120
# How the record says that a tensor is in FP32, in rows.
_FP32_ROWS = {"type": "FLOAT", "layout": "LINEAR"}


def record_of(engine: Path) -> dict[str, Any]:
    """The record of an engine.

    Raises:
        InputError: there is none, or it is of another engine than the one there.
    """
    record = read_record(engine)
    if record is None and not engine.is_file():
        raise InputError("there is no such file", where=str(engine), hint="give an .engine file of trt_builder build")
    if record is None:
        raise InputError(
            "no record beside it", where=str(engine), hint="engines of trt_builder build have one: <engine>.json"
        )
    # The record alone is enough to look at, but not beside another engine than it is of.
    if engine.is_file() and engine.stat().st_size != record["bytes"]:
        raise InputError(
            f"has {engine.stat().st_size} bytes, its record says {record['bytes']}: truncated or replaced",
            where=str(engine),
            hint="build it again",
        )
    return record


def table(record: Mapping[str, Any]) -> Iterator[str]:
    """An engine as lines of text."""
    achieved = record["achieved"]
    yield f"{record['component']}: {record['precision_policy']}, {_where(record)}, {record['bytes'] / 1e6:.1f} MB"
    yield f"built in {record['build_seconds']} s"
    if record["engine_memory"] is not None:
        yield f"memory for activations: {_memory(record)}"
    for kind in ("inputs", "outputs"):
        for tensor in record[kind]:
            yield f"{kind[:-1]} {tensor['name']}: {tensor['dtype']} {tensor['shape']}{_taken(record, tensor)}"
    for index, profile in enumerate(record["profiles"]):
        for name, shapes in profile.items():
            yield f"profile {index}, {name}: min {shapes['min']}, opt {shapes['opt']}, max {shapes['max']}"
    for title, key in (
        ("layers", "share_of_layers"),
        ("matrix layers", "share_of_matrix_layers"),
        ("time", "share_of_time"),
    ):
        if achieved.get(key):
            yield f"share of {title}: {_shares(achieved[key])}"
    yield f"reformat layers: {achieved['reformat_layers']}, Q/DQ not fused: {len(achieved['qdq_not_fused'])}"
    if achieved.get("fp16_accumulating_kernels"):
        yield f"kernels that accumulate in FP16: {achieved['fp16_accumulating_kernels']}"
    times = record["times_ms"] or {}
    yield ""
    yield f"{'ms':>8}  {'precision':9} {'kind':24} layer"
    for layer in record["layers"]:
        time = times.get(layer["name"])
        measured = "" if time is None else f"{time:.4f}"
        yield f"{measured:>8}  {layer['precision'] or '-':9} {layer['kind'][:24]:24} {_short(layer['name'])}"


def _taken(record: Mapping[str, Any], tensor: Mapping[str, Any]) -> str:
    """How an engine wants an input that is float32 in the graph, where it is something else."""
    # Records of before this choice don't say: their engines take rows.
    chosen = record.get("formats", {}).get(tensor["name"], _FP32_ROWS)
    return (
        ""
        if tensor["dtype"] != "float32" or chosen == _FP32_ROWS
        else f", taken as {chosen['type']}, {chosen['layout']}"
    )


def _short(name: str) -> str:
    """A layer's name, cut where it is long: a dozen fused nodes have 500 characters. The record has all of it."""
    return name if len(name) <= _LABEL else f"{name[: _LABEL - 3]}..."


def _where(record: Mapping[str, Any]) -> str:
    place = "for any GPU that it runs on" if record["architecture"] == PORTABLE else f"on {record['architecture']}"
    return f"{TITLES[flavor_of(record)]} {record['tensorrt']['version']} {place}"


def comparison(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    """Two engines side by side: totals, then the nodes that run in another precision, as they come in the first."""
    values: dict[str, Callable[[Mapping[str, Any]], object]] = {
        "component": lambda record: record["component"],
        "policy": lambda record: record["precision_policy"],
        "built for": _where,
        "MB": lambda record: f"{record['bytes'] / 1e6:.1f}",
        "layers": lambda record: record["achieved"]["layers"],
        "matrix layers": lambda record: _shares(record["achieved"]["share_of_matrix_layers"]),
        "reformat layers": lambda record: record["achieved"]["reformat_layers"],
        "activation memory": _memory,
        "ms, sum of layers": _total,
    }
    rows = [[title, str(value(first)), str(value(second))] for title, value in values.items()]
    precisions = _precision_of_nodes(second)
    nodes = [
        [node, precision, precisions[node]]
        for node, precision in _precision_of_nodes(first).items()
        if precisions.get(node, precision) != precision
    ]
    yield from Table("", ["", "first", "second"], rows).text().splitlines()[1:]
    if nodes:
        yield from Table("", ["node", "first", "second"], nodes).text().splitlines()


def _shares(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.1%}" for name, share in shares.items()) or MISSING


def _memory(record: Mapping[str, Any]) -> str:
    return MISSING if record["engine_memory"] is None else f"{record['engine_memory'] / 2**20:.1f} MiB"


def _total(record: Mapping[str, Any]) -> str:
    return f"{sum(record['times_ms'].values()):.3f}" if record["times_ms"] else "not measured"


def _precision_of_nodes(record: Mapping[str, Any]) -> dict[str, str]:
    return {node: layer["precision"] for layer in record["layers"] for node in layer["nodes"] if layer["precision"]}


def picture(record: Mapping[str, Any]) -> str:
    """Bars of the time per layer, slowest first, colored by precision, as an SVG.

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
    longest, whole = max(time for _, time in bars), sum(times.values())
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="1200" height="{_ROW * len(bars) + 50}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="10" y="18" font-size="14">{html.escape(record["component"])}: {record["precision_policy"]}, '
        f"{_where(record)}, {whole:.3f} ms in all layers</text>",
    ]
    for index, (name, time) in enumerate(bars):
        top = 30 + index * _ROW
        known = precision.get(name) or ""
        width = max(1.0, 260 * time / longest)
        lines += [
            # Browsers show the title, the whole name, under the mouse.
            f"<g><title>{html.escape(name)}</title>",
            f'<text x="65" y="{top + 10}" text-anchor="end">{time:.4f} ms</text>',
            f'<text x="110" y="{top + 10}" text-anchor="end">{time / whole:.1%}</text>',
            f'<rect x="120" y="{top}" width="{width:.1f}" height="{_ROW - 3}" fill="{_COLORS.get(known, _OTHER)}"/>',
            f'<text x="390" y="{top + 10}">{known}</text>',
            f'<text x="420" y="{top + 10}">{html.escape(_short(name))}</text></g>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"
