"""INT8 on a real GPU: what Q/DQ graphs compute and take in, and the INT8 models' metrics against ONNX Runtime's.

The models' workspaces come from a machine with the exporter: `make centerpoint-int8` and so on leave them under work/,
with the data set beside them; INT8_WORK names another folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from benchmarks import int8 as benchmark
from shared.errors import EnvironmentLacks
from shared.workspace import Workspace
from tests.support import trt_run
from tests.support.qdq_graphs import residual_block
from tests.support.trt_workspaces import ENCODER, HEAD, encoder, head, make_workspace, quantise
from trt_builder import target as targets
from trt_builder.build import build_all
from trt_builder.target import Target

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).resolve().parents[2]
INT8 = ["tensorrt.precision_policy=int8", "tensorrt.tactic_sources=[]"]
# Points: two implementations round a few values to other steps, and a mean over 11 recalls jumps.
METRIC_TOLERANCE = 1.0


@pytest.fixture(scope="module")
def target() -> Target:
    try:
        return targets.find("tensorrt")
    except EnvironmentLacks as missing:
        pytest.skip(str(missing))


def build(root: Path, target: Target, models: dict[str, onnx.ModelProto]) -> tuple[Workspace, dict[str, Any]]:
    """A workspace with INT8 engines of these models, and component to record."""
    ws = make_workspace(root, models)
    build_all(ws.root, target="tensorrt", overrides=INT8)
    engines = ws.manifest().results["engines"]
    return ws, {name: engines[f"{target.name('int8')}/{name}"] for name in models}


@pytest.mark.parametrize("skip", [(), (r"blocks\.0/",), (r"blocks\.0/", r"^/head/.*\.1/")])
def test_what_is_quantised_runs_in_int8_and_the_rest_in_fp16(
    target: Target, tmp_path: Path, skip: tuple[str, ...]
) -> None:
    model = quantise(head(), skip=skip)
    _, found = build(tmp_path, target, {ENCODER: encoder(), HEAD: model})
    quantised = sum(node.op_type == "Conv" and node.input[0].endswith(".dq") for node in model.graph.node)
    matrix = sum(node.op_type in ("Conv", "ConvTranspose") for node in model.graph.node)
    achieved = found[HEAD]["achieved"]
    assert achieved["not_as_asked"] == {}
    assert achieved["share_of_matrix_layers"]["int8"] == pytest.approx(quantised / matrix, abs=0.01)
    assert found[ENCODER]["achieved"]["share_of_matrix_layers"] == {"fp16": 1.0}


@pytest.mark.parametrize("activation", ["Relu", "Clip"])
def test_a_residual_block_computes_what_its_graph_says(target: Target, tmp_path: Path, activation: str) -> None:
    model = residual_block(activation)
    ws, found = build(tmp_path, target, {HEAD: model})
    assert found[HEAD]["achieved"]["share_of_matrix_layers"] == {"int8": 1.0}
    # The input has to be quantised by somebody; what is between the convolutions is part of their kernels.
    assert not [name for name in found[HEAD]["achieved"]["qdq_not_fused"] if name.startswith(("conv1", "conv2"))]
    runtime, engine = trt_run.load(target, ws.artifact(found[HEAD]["engine"]))
    inputs = {"x": np.random.default_rng(0).standard_normal((1, 4, 16, 16)).astype(np.float32)}
    got, wanted = trt_run.run(target, engine, inputs), trt_run.reference(model, inputs)
    for name, value in wanted.items():
        assert np.abs(got[name] - value).max() < 0.02 * np.abs(value).max()
    del engine, runtime


@pytest.mark.parametrize("model", ["centerpoint", "yolox", "calibration"])
def test_the_demo_s_metric_is_that_of_onnx_runtime(target: Target, tmp_path: Path, model: str) -> None:
    folder = Path(os.environ.get("INT8_WORK", ROOT / "work"))
    made = folder / f"{model}-int8"
    if not (made / "manifest.json").is_file():
        pytest.skip(f"{made} is not there; run: make {model}-int8")
    work = tmp_path / made.name
    shutil.copytree(made, work)
    tool("trt_builder", "build", "--work", work)
    tool("runtime", "run", "--work", work, "--backend", "tensorrt", "--device", "cuda", "--data", folder / "demo")
    tool("evaluator", "evaluate", "--work", work, "--data", folder / "demo")
    metrics = json.loads((work / "manifest.json").read_text(encoding="utf-8"))["results"]["metrics"]
    name = {"centerpoint": "mAP", "yolox": "mAP", "calibration": "accuracy"}[model]
    engine, onnx_runtime = (100 * metrics[backend][name] for backend in ("tensorrt-cuda", "onnx-cpu"))
    assert abs(engine - onnx_runtime) < METRIC_TOLERANCE


def tool(name: str, *arguments: Any) -> None:
    """Run one of the tools to its end."""
    code = f"from {name}.cli import cli; cli(prog_name={name!r})"
    answer = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert answer.returncode == 0, answer.stderr


def test_the_benchmark_measures_every_layer(target: Target) -> None:
    rows = list(
        benchmark.compare(
            head(None),
            {"height": 256, "width": 256},
            {"int8": (), "int8, first block fp16": (r"blocks\.0/",)},
            {},
            overrides=["tensorrt.tactic_sources=[]"],
        )
    )
    assert [row.get("error") for row in rows] == [None] * 4
    for row in rows:
        assert 0 < row["gpu_ms_median"] <= row["gpu_ms_p99"]
        matrix = [layer for layer in row["layers"] if "operations" in layer]
        assert len(matrix) >= 10
        assert all(layer["ms"] > 0 for layer in matrix)
        # Nothing is faster than the roofline, but for what a profiler's clock does not resolve.
        assert all(layer["roofline_ms"] < layer["ms"] + 0.005 for layer in matrix if "roofline_ms" in layer)
