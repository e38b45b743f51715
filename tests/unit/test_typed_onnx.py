"""FP16 by the types in a graph: inputs and outputs as they were, nearly the same results, and what stays in FP32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from exporter.autoware import typed_onnx
from exporter.autoware.emulated_fp16 import emulate
from exporter.autoware.typed_onnx import signal_to_noise, write_typed_onnx
from shared.cast_graph import lower
from shared.errors import ExportError, InputError
from shared.fp16_range import KIND
from shared.onnx_graph import tensor_types
from shared.workspace import Workspace
from tests.support.trt_workspaces import ENCODER, HEAD, encoder, head, make_workspace, profile, quantize

PROFILES = {
    ENCODER: profile(8, 1, 10, 20),
    HEAD: {"spatial_features": {f"{kind}_shape": [1, 16, 16, 16] for kind in ("min", "opt", "max")}},
}
CONFIG = {"components": {name: {"tensorrt_profile": value} for name, value in PROFILES.items()}}


def typed(ws: Workspace, name: str, target: Path) -> Any:
    component = ws.spec().component(name)
    return write_typed_onnx(ws.onnx(component.onnx), target, ws, component)


def scaled(model: onnx.ModelProto, name: str, factor: float) -> onnx.ModelProto:
    """The model with a weight multiplied."""
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), name))
    return model


@pytest.mark.parametrize("name", [ENCODER, HEAD])
def test_inputs_and_outputs_stay_and_the_inside_is_fp16(tmp_path: Path, name: str) -> None:
    ws = make_workspace(tmp_path / "work", {ENCODER: encoder(norm=True), HEAD: head()}, CONFIG)
    report = typed(ws, name, tmp_path / "typed.onnx")
    before, after = onnx.load(str(ws.onnx(f"onnx/{name}.onnx"))), onnx.load(str(tmp_path / "typed.onnx"))
    assert (after.graph.input, after.graph.output) == (before.graph.input, before.graph.output)
    assert after.opset_import == before.opset_import
    types = tensor_types(after)
    matrix = [node for node in after.graph.node if node.op_type in ("Conv", "ConvTranspose", "MatMul")]
    assert {types[node.output[0]] for node in matrix} == {TensorProto.FLOAT16}
    assert report.fp16_nodes >= len(matrix) > 0
    assert report.fp32_nodes == {}
    assert report.checked_on == "random numbers"
    assert 40 < report.snr_db < 90
    assert "all of them" in str(report)


def test_nodes_whose_values_fp16_can_not_hold_stay_in_fp32(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "work", {ENCODER: scaled(encoder(), "weight", 1e4)}, CONFIG)
    report = typed(ws, ENCODER, tmp_path / "typed.onnx")
    assert report.snr_db > 40
    assert "reaches" in report.fp32_nodes["/pfn/linear/MatMul"]
    assert "/pfn/linear/MatMul (" in str(report)


def test_a_quantized_graph_keeps_its_int8_kernels(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "work", {HEAD: quantize(head())}, CONFIG)
    report = typed(ws, HEAD, tmp_path / "typed.onnx")
    before, after = (onnx.load(str(path)) for path in (ws.onnx(f"onnx/{HEAD}.onnx"), tmp_path / "typed.onnx"))
    for kind in ("QuantizeLinear", "DequantizeLinear"):
        assert sum(node.op_type == kind for node in after.graph.node) == sum(
            node.op_type == kind for node in before.graph.node
        )
    assert "part of an INT8 kernel" in report.fp32_nodes.values()
    assert "nodes (part of an INT8 kernel)" in str(report)
    assert len(str(report)) < 300


def test_recorded_ranges_keep_nodes_in_fp32_too(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "work", {ENCODER: encoder()}, CONFIG)
    with ws.stage("ranges", tool="runtime") as stage:
        record = {"onnx_sha256": ws.input_hash(f"onnx/{ENCODER}.onnx"), "largest": {"linear": 1e5}}
        stage.json_artifact(f"ranges/{ENCODER}.json", KIND, record)
    report = typed(ws, ENCODER, tmp_path / "typed.onnx")
    assert report.fp32_nodes["/pfn/linear/MatMul"] == "'linear' reaches 1e+05 on recorded samples"


def test_a_graph_that_overflows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ws = make_workspace(tmp_path / "work", {ENCODER: scaled(encoder(), "weight", 1e4)}, CONFIG)
    monkeypatch.setattr(typed_onnx, "beyond_fp16", lambda *_: {})
    with pytest.raises(ExportError, match="in FP16, 'pillar_features' has -inf dB"):
        typed(ws, ENCODER, tmp_path / "typed.onnx")


def test_the_emulation_overflows_where_onnx_runtime_alone_does_not() -> None:
    lowered, _ = lower(scaled(encoder(), "weight", 1e4), "fp16")
    features = np.random.default_rng(0).standard_normal((10, 8, 11)).astype(np.float32)
    largest = {}
    for name, model in (("alone", lowered), ("emulated", emulate(lowered))):
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        largest[name] = float(np.abs(session.run(None, {"input_features": features})[0]).max())
    assert largest["emulated"] == np.inf
    assert largest["alone"] < np.inf  # when this fails, ONNX Runtime rounds by itself, and the emulation can go


@pytest.mark.parametrize("norm", [False, True])
def test_the_emulation_rounds_as_the_graph_does(norm: bool) -> None:
    lowered, _ = lower(encoder(norm=norm), "fp16")
    features = np.random.default_rng(0).standard_normal((10, 8, 11)).astype(np.float32)
    exact = ReferenceEvaluator(lowered).run(None, {"input_features": features})[0]
    emulated = ReferenceEvaluator(emulate(lowered)).run(None, {"input_features": features})[0]
    assert (emulated.astype(np.float16) == emulated).all()
    # Sums in FP32 and in FP16 may round to neighbors.
    assert np.abs(emulated - exact).max() <= 4 * np.abs(exact).max() * 2.0**-11


def test_sizes_that_nobody_knows(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "work", {ENCODER: encoder()})
    with pytest.raises(InputError, match="runtime trace"):
        typed(ws, ENCODER, tmp_path / "typed.onnx")


def test_the_ratio_of_signal_and_noise() -> None:
    signal = np.array([3.0, 4.0], dtype=np.float32)
    assert signal_to_noise(signal, signal) == np.inf
    assert signal_to_noise(signal * np.float32(1.1), signal) == pytest.approx(20.0, abs=1e-3)
    assert np.isnan(signal_to_noise(np.array([np.nan, 4.0], dtype=np.float32), signal))
    assert signal_to_noise(np.array([np.inf, 4.0], dtype=np.float32), signal) == -np.inf
