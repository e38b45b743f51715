"""INT8 against FP16 and FP32: GPU time, achieved precisions, size, and each layer beside the roofline.

    python benchmarks/int8.py --out int8.json                                    a network of the 121 m model's size
    python benchmarks/int8.py --out int8.json --onnx HEAD.onnx --size height=1020 width=1020
    python benchmarks/int8.py --out int8.json --add calibrated=INT8.onnx         a quantized graph beside them

Needs TensorRT and a GPU; with TensorRT for RTX alone it builds, and tells precisions and sizes without times. The
Q/DQ nodes that it puts in have made-up scales: values are wrong, times are not. What a skip list leaves out runs in
FP16, as do transposed convolutions.

The roofline of a layer (S. Williams et al., 2009) is its arithmetic at the GPU's peak or its traffic at the memory's
bandwidth, whichever takes longer: no kernel can be faster. What a kernel takes beyond it, and all layers without
matrices, is what is left to win.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu_round_tables import int8_table
from benchmarks.trt_engines import Loader, records
from shared import engines
from shared.errors import DeployError
from shared.int8_passes import with_sizes
from shared.workspace import Workspace
from tests.support.trt_workspaces import FULL, HEAD, export, head, quantize
from trt_builder.build import build_all

RUNS = 200

_HEADS = r"/(heatmap|reg|height|dim|rot|vel)"
# Name of the row to regular expressions on ONNX node names that stay in FP16.
SKIPS: dict[str, tuple[str, ...]] = {
    "int8": (),
    "int8, first block fp16": (r"blocks\.0/",),
    "int8, first block and head outputs fp16": (r"blocks\.0/", rf"{_HEADS}\.1/"),
    "int8, first block and heads fp16": (r"blocks\.0/", rf"{_HEADS}\.[01]/"),
}


@dataclass(frozen=True)
class Peak:
    """Peaks of a GPU: operations per second by precision, and bytes per second of its memory."""

    operations: Mapping[str, float]
    bandwidth: float


# Data sheets, without sparsity; FP32 is TF32's where that is allowed, so the ordinary cores' peak does not bound it.
PEAKS = {
    "H200": Peak({"fp32": 494.7e12, "fp16": 989.5e12, "int8": 1979e12}, 4.8e12),
    "A100": Peak({"fp32": 156e12, "fp16": 312e12, "int8": 624e12}, 2.039e12),
    "L4": Peak({"fp32": 60e12, "fp16": 121e12, "int8": 242.5e12}, 300e9),
}
_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}


def main() -> None:
    """Build, measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the figures")
    parser.add_argument("--onnx", type=Path, help="network in floating point; without it one of full size is made")
    parser.add_argument("--size", nargs="*", default=[], metavar="AXIS=N", help="sizes of its named axes")
    parser.add_argument("--skip", nargs="*", default=[], metavar="NAME=REGEX", help="skip lists instead of the usual")
    parser.add_argument("--add", nargs="*", default=[], metavar="NAME=FILE", help="quantized graphs, built as they are")
    parser.add_argument("--set", dest="overrides", nargs="*", default=[], help="overrides of the config")
    parser.add_argument("--work", type=Path, help="folder of the workspace that engines are built in, which is kept")
    parser.add_argument("--gpu", choices=sorted(PEAKS), help="whose roofline to show; without it this machine's GPU's")
    parser.add_argument("--layers", type=int, default=12, help="print so many of the slowest layers of each engine")
    arguments = parser.parse_args()
    logging.basicConfig(level="WARNING", format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    sizes = {name: int(size) for name, size in (item.split("=") for item in arguments.size)}
    model = onnx.load(str(arguments.onnx)) if arguments.onnx else head(1020, FULL)
    skips = {name: (regex,) for name, regex in (item.split("=", 1) for item in arguments.skip)} or SKIPS
    added = {name: onnx.load(file) for name, file in (item.split("=", 1) for item in arguments.add)}
    rows = []
    peak = PEAKS.get(arguments.gpu)
    for row in compare(model, sizes, skips, added, peak, arguments.overrides, work=arguments.work):
        rows.append(row)
        # After every row: a run that is cut short leaves what it has.
        arguments.out.write_text(json.dumps({"runs": RUNS, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    show(rows, arguments.layers)


def compare(
    model: onnx.ModelProto,
    sizes: Mapping[str, int],
    skips: Mapping[str, Sequence[str]],
    added: Mapping[str, onnx.ModelProto],
    peak: Peak | None = None,
    overrides: Sequence[str] = (),
    work: Path | None = None,
) -> Iterator[dict[str, Any]]:
    """Build and measure a network in FP32, FP16 and INT8; yields a row each.

    Args:
        model: in floating point.
        sizes: of its named axes.
        skips: name of a row to regular expressions on the nodes that are not quantized in it.
        added: name of a row to a quantized graph.
        peak: for the roofline; None: of the GPU here, where it is known.
        overrides: ``key=value`` for the config, ``tensorrt.tactic_sources=[]`` where cuBLAS or cuDNN are missing.
        work: folder of the workspace that is built in; None: one that is removed at the end.
    """
    fixed = with_sizes(model, sizes)
    rows = [("fp32", "fp32_tf32", fixed), ("fp16", "fp16", fixed)]
    rows += [(name, "int8", quantize(fixed, skip=skip)) for name, skip in skips.items()]
    rows += [(name, "int8", with_sizes(graph, sizes)) for name, graph in added.items()]
    loader = Loader()
    peak = peak or _peak(loader.target.gpu)
    with tempfile.TemporaryDirectory() as folder:
        # One workspace: its timing cache serves all builds.
        for row in rows:
            yield _measured(loader, work or Path(folder), *row, peak, overrides)


def _measured(
    loader: Loader,
    folder: Path,
    name: str,
    policy: str,
    model: onnx.ModelProto,
    peak: Peak | None,
    overrides: Sequence[str],
) -> dict[str, Any]:
    ws = Workspace.create(folder)
    export(ws, {HEAD: model})
    try:
        build_all(ws.root, target="auto", overrides=[f"tensorrt.precision_policy={policy}", *overrides], force=True)
    except DeployError as error:
        return {"name": name, "policy": policy, "error": str(error)}
    record = records(ws, loader.target.name(policy))[HEAD]
    whole = json.loads(ws.path(f"{record['engine']}.json").read_text(encoding="utf-8"))
    gpu = loader.target.gpu
    row = {
        "name": name,
        "policy": policy,
        "target": loader.target.name(policy),
        "gpu": gpu.name if gpu else None,
        "megabytes": round(record["bytes"] / 1e6, 2),
        "build_seconds": record["build_seconds"],
        "achieved": record["achieved"],
        "layers": layers_beside_roofline(whole["layers"], whole["times_ms"] or {}, model, peak),
    }
    if gpu is not None:
        times = engines.request_times(loader.trt, loader.load(ws, record), RUNS)
        row |= {
            "gpu_ms_median": round(float(np.median(times)), 4),
            "gpu_ms_p99": round(float(np.percentile(times, 99)), 4),
        }
    return row


def _peak(gpu: Any) -> Peak | None:
    return next((peak for name, peak in PEAKS.items() if gpu is not None and name in gpu.name), None)


# -- the roofline -----------------------------------------------------------------------------------------------------


def layers_beside_roofline(
    layers: Sequence[Mapping[str, Any]], times: Mapping[str, float], model: onnx.ModelProto, peak: Peak | None
) -> list[dict[str, Any]]:
    """Per layer of an engine: its precision, time, arithmetic and traffic, and the time that these take at least.

    Args:
        layers: as an engine's record has them.
        times: milliseconds by layer; empty without a GPU.
        model: the graph that it was built from, with fixed sizes.
        peak: of the GPU; None: no roofline.
    """
    shapes = _shapes(onnx.shape_inference.infer_shapes(model))
    work = {node.name: cost for node in model.graph.node if (cost := work_of(node, shapes)) is not None}
    answer = []
    for layer in layers:
        inside = [work[node] for node in layer["nodes"] if node in work]
        precision = layer["precision"] or "fp16"
        row: dict[str, Any] = {
            "name": layer["name"],
            "precision": layer["precision"],
            "ms": round(times[layer["name"]], 5) if layer["name"] in times else None,
        }
        if inside:
            made = layer["outputs"][0][1] if layer["outputs"] else ""
            row["operations"] = sum(cost.operations for cost in inside)
            row["bytes"] = sum(
                cost.inputs * _BYTES.get(precision, 2) + cost.weights * _BYTES.get(precision, 2)
                + cost.outputs * _BYTES.get(made or precision, 2)
                for cost in inside
            )  # fmt: skip
            if peak is not None:
                arithmetic = row["operations"] / peak.operations.get(precision, peak.operations["fp16"])
                traffic = row["bytes"] / peak.bandwidth
                row["roofline_ms"] = round(1e3 * max(arithmetic, traffic), 5)
                row["bound_by"] = "arithmetic" if arithmetic > traffic else "memory"
        answer.append(row)
    return answer


@dataclass(frozen=True)
class Work:
    """What a node does: operations (a multiplication and an addition are two), and elements read and written."""

    operations: int
    inputs: int
    weights: int
    outputs: int


def work_of(node: onnx.NodeProto, shapes: Mapping[str, Sequence[int]]) -> Work | None:
    """The work of a convolution, transposed convolution or matrix product; None for other nodes."""
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return None
    read, weight, made = (list(shapes[name]) for name in (node.input[0], node.input[1], node.output[0]))
    if node.op_type == "Conv":  # weights (out, in / groups, k, k): each output element is a sum over the last three
        operations = 2 * np.prod(made) * np.prod(weight[1:])
    elif node.op_type == "ConvTranspose":  # weights (in, out / groups, k, k): each input element goes into so many
        operations = 2 * np.prod(read) * np.prod(weight[1:])
    else:
        operations = 2 * np.prod(made) * read[-1]
    return Work(int(operations), int(np.prod(read)), int(np.prod(weight)), int(np.prod(made)))


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    graph = model.graph
    values = (*graph.value_info, *graph.input, *graph.output)
    shapes = {value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in values}
    shapes.update({tensor.name: list(tensor.dims) for tensor in graph.initializer})
    return shapes


# -- output -----------------------------------------------------------------------------------------------------------


def show(rows: Sequence[dict[str, Any]], slowest: int) -> None:
    """Print the table, and the slowest layers of each engine where there are times."""
    print(int8_table(rows))
    for row in rows:
        timed = sorted((layer for layer in row.get("layers", ()) if layer["ms"]), key=lambda layer: -layer["ms"])
        if timed:
            print(f"\n{row['name']}: the slowest layers of {sum(layer['ms'] for layer in timed):.3f} ms")
        for layer in timed[:slowest]:
            bound_by = layer.get("bound_by", "")
            print(f"  {layer['ms']:8.4f} {_ms(layer.get('roofline_ms'))} {bound_by:10} {layer['precision']:5} "
                  f"{layer['name'][:90]}")  # fmt: skip


def _ms(value: float | None) -> str:
    return f"{value:8.3f}" if value is not None else f"{'-':>8}"


if __name__ == "__main__":
    main()
