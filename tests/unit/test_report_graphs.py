"""Graphs of the report: which nodes there are, what leads where, and what is known of each."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import TensorProto, helper

from evaluator.report.graphs import engine_graph, onnx_graph


def _model() -> onnx.ModelProto:
    """x -> scale (by a constant) -> a; a -> Relu -> y; a -> Neg -> z."""
    tensor = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])  # noqa: E731
    two = helper.make_tensor("two", TensorProto.FLOAT, [1], [2.0])
    nodes = [
        helper.make_node("Constant", [], ["three"], value=helper.make_tensor("", TensorProto.FLOAT, [1], [3.0])),
        helper.make_node("Mul", ["x", "two"], ["a0"], name="scale"),
        helper.make_node("Add", ["a0", "three"], ["a"], name="shift"),
        helper.make_node("Relu", ["a"], ["y"], name="relu"),
        helper.make_node("Neg", ["a"], ["z"], name="neg"),
    ]
    graph = helper.make_graph(nodes, "g", [tensor("x"), tensor("two")], [tensor("y"), tensor("z")], [two])
    return helper.make_model(graph)


def _arrows(nodes: list[dict[str, Any]], edges: list[tuple[int, int]]) -> set[tuple[str, str]]:
    return {(nodes[start]["name"], nodes[end]["name"]) for start, end in edges}


_ENGINE = {
    "times_ms": {"fused": 0.25},
    "layers": [
        {"name": "fused", "kind": "kgen", "precision": "fp16", "nodes": ["scale", "shift"], "tactic": "t1",
         "inputs": [["x", "fp32"]], "outputs": [["a", "fp16"]]},
        {"name": "last", "kind": "kgen", "precision": "fp32", "nodes": ["relu"], "tactic": "",
         "inputs": [["a", "fp16"]], "outputs": [["y", "fp32"]]},
    ],
}  # fmt: skip


def test_onnx_nodes_have_the_precision_and_time_of_their_layer_and_outputs_their_error() -> None:
    nodes, edges = onnx_graph(_model(), _ENGINE, {"y": "a → b: SNR 60 dB"})
    by_name = {node["name"]: node for node in nodes}
    assert _arrows(nodes, edges) == {
        ("x", "scale"), ("scale", "shift"), ("shift", "relu"), ("shift", "neg"), ("relu", "y"), ("neg", "z")
    }  # fmt: skip
    assert by_name["scale"]["precision"] == "fp16" and by_name["scale"]["ms"] == 0.25
    assert by_name["scale"]["note"] == "engine layer fused, with 1 more"
    assert by_name["relu"]["ms"] is None and "precision" not in by_name["neg"]
    assert by_name["y"]["error"] == "a → b: SNR 60 dB" and by_name["z"]["error"] == ""


def test_layers_of_an_engine_follow_their_tensors() -> None:
    nodes, edges = engine_graph(_ENGINE, {"y": "off"})
    assert _arrows(nodes, edges) == {("x", "fused"), ("fused", "last"), ("last", "y")}
    assert [node["ms"] for node in nodes[:2]] == [0.25, None]
    assert nodes[-1] == {"op": "output", "name": "y", "error": "off"}
