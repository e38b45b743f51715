"""The INT8 benchmark: what layers cost, the roofline beside their times, and a whole run without a GPU."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import onnx
import pytest
from onnx import helper

from benchmarks.int8 import PEAKS, Peak, layers_beside_roofline, show, work_of
from shared.int8_passes import with_sizes
from tests.support import trt_rtx
from tests.support.trt_workspaces import head, quantize


def test_work_is_counted_by_hand() -> None:
    shapes = {"x": [1, 8, 10, 20], "w": [16, 4, 3, 3], "y": [1, 16, 5, 10], "d": [8, 6, 2, 2], "z": [1, 6, 20, 40],
              "a": [7, 32], "b": [32, 5], "c": [7, 5]}  # fmt: skip
    conv = work_of(helper.make_node("Conv", ["x", "w"], ["y"], group=2), shapes)
    assert conv is not None
    assert (conv.operations, conv.inputs, conv.weights, conv.outputs) == (2 * 800 * 36, 1600, 576, 800)
    deconv = work_of(helper.make_node("ConvTranspose", ["x", "d"], ["z"]), shapes)
    assert deconv is not None
    assert deconv.operations == 2 * 1600 * 24
    product = work_of(helper.make_node("MatMul", ["a", "b"], ["c"]), shapes)
    assert product is not None
    assert product.operations == 2 * 7 * 5 * 32
    assert work_of(helper.make_node("Relu", ["x"], ["x"]), shapes) is None


def test_a_layer_is_bound_by_the_slower_of_arithmetic_and_memory() -> None:
    model = quantize(with_sizes(head(None), {"height": 16, "width": 16}))
    node = next(node.name for node in model.graph.node if node.op_type == "Conv")
    layers = [
        {"name": "conv", "precision": "int8", "nodes": [node], "outputs": [["t", "int8"]]},
        {"name": "copy", "precision": "fp16", "nodes": ["other"], "outputs": []},
    ]
    fast = Peak({"fp16": 1e15, "int8": 1e15}, bandwidth=1e6)
    slow = Peak({"fp16": 1e3, "int8": 1e3}, bandwidth=1e15)
    conv, copy = layers_beside_roofline(layers, {"conv": 0.5}, model, fast)
    # 16 channels of 16 x 16 in and out, 16 x 16 x 3 x 3 weights, one byte each.
    assert conv["bytes"] == 2 * 16 * 256 + 16 * 16 * 9
    assert conv["roofline_ms"] == pytest.approx(1e3 * conv["bytes"] / 1e6)
    assert (conv["ms"], conv["bound_by"]) == (0.5, "memory")
    assert copy == {"name": "copy", "precision": "fp16", "ms": None}
    conv, _ = layers_beside_roofline(layers, {}, model, slow)
    assert conv["bound_by"] == "arithmetic"
    assert conv["roofline_ms"] == pytest.approx(1e3 * 2 * 16 * 256 * 16 * 9 / 1e3)
    assert "roofline_ms" not in layers_beside_roofline(layers, {}, model, None)[0]


def test_the_table_of_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    layer = {"name": "conv", "precision": "int8", "ms": 0.25, "roofline_ms": 0.125, "bound_by": "memory"}
    achieved = {"share_of_matrix_layers": {"int8": 1.0}}
    row = {"name": "int8", "megabytes": 6.2, "gpu_ms_median": 1.5, "gpu_ms_p99": 1.6, "achieved": achieved}
    show([{**row, "layers": [layer]}, {"name": "fp16", "error": "no kernel"}], slowest=1)
    said = capsys.readouterr().out
    assert "| int8 | 1.500 | 1.600 | 0.125 | 6.2 | 100% int8 |" in said
    assert "0.2500    0.125 memory     int8  conv" in said
    assert "no kernel" in said
    assert PEAKS["H200"].bandwidth == 4.8e12


def test_without_a_gpu_it_tells_precisions_and_sizes(tmp_path: Path) -> None:
    onnx.save(head(None), str(tmp_path / "head.onnx"))
    onnx.save(quantize(head(None)), str(tmp_path / "int8.onnx"))
    out = tmp_path / "out.json"
    run = subprocess.run(
        [trt_rtx.python(), "-m", "benchmarks.int8", "--out", str(out), "--onnx", str(tmp_path / "head.onnx"),
         "--size", "height=32", "width=32", "--skip", "int8 backbone=^/(head|neck)/", "--add",
         f"given={tmp_path / 'int8.onnx'}"],
        capture_output=True, text=True, check=False, timeout=600, env=trt_rtx.environment(), cwd=trt_rtx.ROOT,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    rows = {row["name"]: row for row in json.loads(out.read_text())["rows"]}
    shares = {name: row["achieved"]["share_of_matrix_layers"] for name, row in rows.items()}
    assert shares["fp32"] == {"fp32": 1.0}
    assert shares["fp16"] == {"fp16": 1.0}
    assert 0 < shares["int8 backbone"]["int8"] < shares["given"]["int8"]
    assert "gpu_ms_median" not in rows["given"]
    assert all(layer["ms"] is None for layer in rows["given"]["layers"])
