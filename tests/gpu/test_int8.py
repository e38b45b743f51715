"""INT8 on a real GPU: what Q/DQ graphs compute and take in, and the INT8 models' metrics against ONNX Runtime's.

The models' workspaces come from a machine with the exporter: `make centerpoint-int8` and so on leave them under work/,
with the data set beside them; INT8_WORK names another folder. A run of ONNX Runtime that is not in them is made here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from benchmarks import int8 as benchmark
from shared.arrays import Float32
from shared.config import from_resolved
from shared.data import open_dataset
from shared.data.labels import labels_in
from shared.runs import Run
from shared.tasks import find
from shared.workspace import Workspace
from tests.support import trt_run
from tests.support.qdq_graphs import residual_block
from tests.support.trt_workspaces import CHANNELS, ENCODER, HEAD, encoder, head, make_workspace, quantize
from trt_builder.build import build_all
from trt_builder.layers import Layer
from trt_builder.target import Target

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).resolve().parents[2]
# None of this is about the fastest kernels, for which level 3, the usual one, takes five to ten times as long.
QUICKLY = ["tensorrt.tactic_sources=[]", "tensorrt.optimization_level=1"]
INT8 = ["tensorrt.precision_policy=int8", *QUICKLY]
# Points: two implementations round a few values to other steps, and a mean over 11 recalls jumps.
METRIC_TOLERANCE = 1.0
# A round on a GPU has the three models' tests side by side: ONNX Runtime takes all cores for itself otherwise.
THREADS = max(1, len(os.sched_getaffinity(0)) // 3)
# Of what a tool that failed said last.
LINES_TOLD = 5


def build(root: Path, target: Target, models: dict[str, onnx.ModelProto]) -> tuple[Workspace, dict[str, Any]]:
    """A workspace with INT8 engines of these models, and component to what the manifest says about its engine."""
    ws = make_workspace(root, models)
    build_all(ws.root, target="tensorrt", overrides=INT8)
    engines = ws.manifest().results["engines"]
    return ws, {name: engines[f"{target.name('int8')}/{name}"] for name in models}


def precisions(ws: Workspace, engine: dict[str, Any], nodes: Collection[str]) -> dict[str, str]:
    """Node to what it runs in, as the record beside the engine says. TensorRT merges parallel nodes into one layer."""
    record = json.loads(ws.artifact(f"{engine['engine']}.json").read_text(encoding="utf-8"))
    found = {}
    for node in nodes:
        # Reformats are called after the nodes whose tensors they convert, and what follows a convolution may name it.
        inside = [layer for layer in record["layers"] if node in layer["nodes"] and not of_kind(layer).is_reformat]
        computing = [layer for layer in inside if of_kind(layer).is_matrix] or inside
        found[node] = "/".join(sorted({layer["precision"] for layer in computing})) or "not told"
    return found


def answers(
    ws: Workspace, target: Target, record: dict[str, Any], model: onnx.ModelProto, inputs: dict[str, Float32]
) -> dict[str, tuple[Float32, Float32]]:
    """Output to what the engine and ONNX's own evaluator compute."""
    runtime, engine = trt_run.load(target, ws.artifact(record["engine"]))
    got, wanted = trt_run.run(target, engine, inputs), trt_run.reference(model, inputs)
    del engine, runtime
    return {name: (got[name], value) for name, value in wanted.items()}


def of_kind(layer: dict[str, Any]) -> Layer:
    """As much of a layer as says what it does."""
    return Layer(layer["name"], layer["kind"], (), (), "", "", ())


@pytest.mark.parametrize("skip", [(), (r"blocks\.0/",), (r"blocks\.0/", r"^/head/.*\.1/")])
def test_what_is_quantized_runs_in_int8_and_the_rest_in_fp16(target: Target, work: Path, skip: tuple[str, ...]) -> None:
    model = quantize(head(), skip=skip)
    wanted = {
        node.name: "int8" if node.input[0].endswith(".dq") else "fp16"
        for node in model.graph.node
        if node.op_type in ("Conv", "ConvTranspose")
    }
    ws, found = build(work, target, {ENCODER: encoder(), HEAD: model})
    got = precisions(ws, found[HEAD], wanted)
    wrong = {node: f"{got[node]}, not {precision}" for node, precision in wanted.items() if got[node] != precision}
    assert not wrong, f"{wrong}; achieved: {found[HEAD]['achieved']}"
    assert found[HEAD]["achieved"]["not_as_asked"] == {}, f"achieved: {found[HEAD]['achieved']}"
    assert skip or found[HEAD]["achieved"]["share_of_matrix_layers"]["int8"] > 0.9
    inputs = {"spatial_features": np.random.default_rng(3).standard_normal((1, CHANNELS, 16, 16)).astype(np.float32)}
    for name, (got_values, wanted_values) in answers(ws, target, found[HEAD], model, inputs).items():
        assert np.abs(got_values - wanted_values).max() < 0.2 * np.abs(wanted_values).max(), name
    encoder_runs = found[ENCODER]["achieved"]
    assert encoder_runs["share_of_matrix_layers"] == {"fp16": 1.0}, f"achieved by the encoder: {encoder_runs}"


@pytest.mark.parametrize("activation", ["Relu", "Clip"])
def test_a_residual_block_computes_what_its_graph_says(target: Target, work: Path, activation: str) -> None:
    model = residual_block(activation)
    ws, found = build(work, target, {HEAD: model})
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    runs = precisions(ws, found[HEAD], convolutions)
    assert runs == dict.fromkeys(convolutions, "int8"), f"{runs}; achieved: {found[HEAD]['achieved']}"
    # The input has to be quantized by somebody; what is between the convolutions is part of their kernels.
    alone = [name for name in found[HEAD]["achieved"]["qdq_not_fused"] if name.startswith(("conv1", "conv2"))]
    assert not alone, f"{alone} not fused; achieved: {found[HEAD]['achieved']}"
    inputs = {"x": np.random.default_rng(0).standard_normal(shape_of(model.graph.input[0])).astype(np.float32)}
    for name, (got, value) in answers(ws, target, found[HEAD], model, inputs).items():
        errors, largest = np.abs(got - value), np.abs(value).max()
        assert errors.max() < 0.02 * largest, (
            f"{name}: off by {errors.max():.4g} at most, {errors.mean():.4g} on average, "
            f"{(errors >= 0.02 * largest).mean():.1%} of the values too far; the largest is {largest:.4g}, "
            f"the engine's {np.abs(got).max():.4g}"
        )


@pytest.mark.parametrize("model", ["centerpoint", "yolox", "calibration"])
def test_the_demo_s_metric_is_that_of_onnx_runtime(target: Target, tmp_path: Path, timings: Path, model: str) -> None:
    folder = Path(os.environ.get("INT8_WORK", ROOT / "work"))
    made = folder / f"{model}-int8"
    if not (made / "manifest.json").is_file():
        pytest.skip(f"{made} is not there; run: make {model}-int8")
    work = tmp_path / made.name
    shutil.copytree(made, work)
    shutil.copytree(timings, work / "tensorrt" / "timing", dirs_exist_ok=True)
    settings = [word for each in QUICKLY for word in ("--set", each)]
    tool("trt_builder", "build", "--work", work, "--target", "tensorrt", *settings)
    labels = labels_of(Workspace.open(work), folder / "demo")
    # All of them: a config may ask for a part.
    run = ("run", "--work", work, "--data", folder / "demo", "--num-samples", -1)
    tool("runtime", *run, "--backend", "tensorrt", "--device", "cuda")
    theirs = work / "runs" / "onnx-cpu"
    if not theirs.is_dir() or len(Run.open(theirs)) < len(labels):
        tool("runtime", *run, "--backend", "onnx", "--device", "cpu", "--threads", THREADS)
    name = {"centerpoint": "mAP", "yolox": "mAP", "calibration": "accuracy"}[model]
    engine, wanted = (100 * metrics(folder, labels)[name] for folder in (work / "runs" / "tensorrt-cuda0", theirs))
    assert abs(engine - wanted) < METRIC_TOLERANCE, f"{name}: TensorRT {engine:.2f}, ONNX Runtime {wanted:.2f}"


def labels_of(workspace: Workspace, data: Path) -> list[Any]:
    """What is right, a sample each."""
    config, spec = from_resolved(workspace.config(), str(workspace.root)), workspace.spec()
    dataset = open_dataset(config.data, root=data, task=spec.task)
    task, to_model = find(spec.task), labels_in(spec.classes, dataset.classes)
    return [task.labels_of(dataset.sample(index), to_model) for index in range(len(dataset))]


def metrics(folder: Path, labels: list[Any]) -> dict[str, float]:
    """Of a run, by the task itself: what the evaluator needs for its own is not installed beside every TensorRT."""
    run = Run.open(folder)
    task = find(run.header.task)
    return task.agreement(labels, (run.predictions(index, task.container) for index in range(len(run))))


def tool(name: str, *arguments: Any) -> None:
    """Run one of the tools to its end."""
    code = f"from {name}.cli import cli; cli(prog_name={name!r})"
    answer = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    said = " / ".join((answer.stdout + answer.stderr).splitlines()[-LINES_TOLD:])
    assert answer.returncode == 0, f"{name} {' '.join(map(str, arguments))}: exit {answer.returncode}: {said}"


def shape_of(value: onnx.ValueInfoProto) -> list[int]:
    return [axis.dim_value for axis in value.type.tensor_type.shape.dim]


def test_the_benchmark_measures_every_layer(target: Target) -> None:
    rows = list(
        benchmark.compare(
            head(None),
            {"height": 256, "width": 256},
            {"int8": (), "int8, first block fp16": (r"blocks\.0/",)},
            {},
            overrides=QUICKLY,
        )
    )
    errors = {row["name"]: row["error"] for row in rows if "error" in row}
    assert not errors, f"{errors}"
    assert len(rows) == 4, f"{[row['name'] for row in rows]}"
    for row in rows:
        times = row["gpu_ms_median"], row["gpu_ms_p99"]
        assert 0 < times[0] <= times[1], f"{row['name']}: median and p99 {times}"
        matrix = [layer for layer in row["layers"] if "operations" in layer]
        assert len(matrix) >= 10, f"{row['name']}: {[layer['name'] for layer in matrix]}"
        untimed = [layer["name"] for layer in matrix if not layer["ms"]]
        assert not untimed, f"{row['name']}: no times of {untimed}"
        # Nothing is faster than the roofline, but for what a profiler's clock does not resolve.
        faster = [layer for layer in matrix if layer.get("roofline_ms", 0) >= layer["ms"] + 0.005]
        assert not faster, f"{row['name']}: faster than the roofline: {faster}"
