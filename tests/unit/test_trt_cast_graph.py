"""Precision baked into a graph: it computes nearly the same, where it must, in the type that was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from shared.cast_graph import lower
from shared.onnx_graph import tensor_types
from tests.support.qdq_graphs import Net
from tests.support.trt_run import with_known_qdq
from tests.support.trt_workspaces import CHANNELS, FEATURES, POINTS, encoder, head, quantize


def run(model: onnx.ModelProto, inputs: dict[str, Any]) -> list[Any]:
    return list(ReferenceEvaluator(with_known_qdq(model)).run(None, inputs))


def features(voxels: int = 7) -> dict[str, Any]:
    random = np.random.default_rng(5)
    return {"input_features": random.standard_normal((voxels, POINTS, FEATURES)).astype(np.float32)}


def image() -> dict[str, Any]:
    return {"spatial_features": np.random.default_rng(5).standard_normal((1, CHANNELS, 16, 16)).astype(np.float32)}


@pytest.mark.parametrize(
    ("model", "inputs"), [(encoder(), features()), (encoder(norm=True), features()), (head(), image())]
)
def test_fp16_computes_nearly_the_same_and_not_exactly(model: onnx.ModelProto, inputs: dict[str, Any]) -> None:
    before = model.SerializeToString()
    lowered, report = lower(model, "fp16")
    assert model.SerializeToString() == before
    onnx.checker.check_model(lowered, full_check=True)
    assert report.low > 0
    assert report.kept == {}
    for wanted, got in zip(run(model, inputs), run(lowered, inputs), strict=True):
        assert got.dtype == np.float32
        error = np.abs(got - wanted).max() / np.abs(wanted).max()
        assert 1e-6 < error < 5e-3


def test_inputs_and_outputs_keep_names_types_and_shapes() -> None:
    model = head()
    lowered, _ = lower(model, "fp16")
    assert list(lowered.graph.input) == list(model.graph.input)
    assert list(lowered.graph.output) == list(model.graph.output)


def test_every_matrix_node_is_in_the_low_type_and_weights_are_halved() -> None:
    lowered, report = lower(head(), "fp16")
    types = tensor_types(lowered)
    convolutions = [node for node in lowered.graph.node if "Conv" in node.op_type]
    assert len(convolutions) == 17
    assert {types[node.output[0]] for node in convolutions} == {TensorProto.FLOAT16}
    assert {tensor.data_type for tensor in lowered.graph.initializer} == {TensorProto.FLOAT16}
    assert report.casts == 7  # one input, six outputs


def test_bf16_weights_are_bf16() -> None:
    lowered, _ = lower(head(), "bf16")
    assert {tensor.data_type for tensor in lowered.graph.initializer} == {TensorProto.BFLOAT16}


def test_kept_nodes_stay_in_fp32_with_casts_around_them() -> None:
    model = head()
    keep = {"/head/shared/Conv": "keep_fp32"}
    lowered, report = lower(model, "fp16", keep=keep)
    types = tensor_types(lowered)
    by_name = {node.name: node for node in lowered.graph.node}
    assert types[by_name["/head/shared/Conv"].output[0]] == TensorProto.FLOAT
    assert types[by_name["/head/shared/Conv"].input[1]] == TensorProto.FLOAT
    assert types[by_name["/head/vel.0/Conv"].output[0]] == TensorProto.FLOAT16
    assert report.kept == keep
    for wanted, got in zip(run(model, image()), run(lowered, image()), strict=True):
        assert np.abs(got - wanted).max() / np.abs(wanted).max() < 5e-3


def test_a_small_variance_does_not_vanish_in_fp16() -> None:
    # 1e-9 is zero in FP16: normalizing by it there would give infinities.
    model = encoder(norm=True)
    for tensor in model.graph.initializer:
        if tensor.name == "variance":
            tensor.CopyFrom(numpy_helper.from_array(np.full(CHANNELS, 1e-9, np.float32), "variance"))
    model.graph.node[2].attribute[0].f = 1e-9
    lowered, _ = lower(model, "fp16")
    small = {"input_features": features()["input_features"] * 1e-3}
    (wanted,), (got,) = run(model, small), run(lowered, small)
    assert np.isfinite(got).all()
    assert np.abs(got - wanted).max() / np.abs(wanted).max() < 5e-3


def test_a_weight_beyond_fp16_keeps_its_node_in_fp32() -> None:
    model = encoder()
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[0, 0] = 1e5
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "weight"))
    lowered, report = lower(model, "fp16")
    assert report.kept == {"/pfn/linear/MatMul": "weight 'weight' reaches 1e+05"}
    assert {tensor.name for tensor in lowered.graph.initializer} >= {"weight"}


def test_between_q_and_dq_nothing_is_cast() -> None:
    model = quantize(head())
    lowered, report = lower(model, "fp16")
    by_output = {output: node for node in lowered.graph.node for output in node.output}
    for node in lowered.graph.node:
        if node.op_type in ("Conv", "QuantizeLinear"):
            made_by = [by_output[name].op_type for name in node.input[:1] if name in by_output]
            assert made_by[:1] in ([], ["DequantizeLinear"], ["Relu"], ["Concat"]), node.name
    assert report.kept["/head/shared/Conv"] == "part of an INT8 kernel"
    for wanted, got in zip(run(model, image()), run(lowered, image()), strict=True):
        assert np.abs(got - wanted).max() / np.abs(wanted).max() < 0.1


def model_of(nodes: list[onnx.NodeProto], weights: dict[str, Any], opset: int = 17) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a", "b", "c", "d"])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def test_resize_keeps_its_scales_in_fp32() -> None:
    scales = np.array([1, 1, 2, 2], np.float32)
    model = model_of(
        [helper.make_node("Resize", ["x", "", "scales"], ["y"], name="resize", mode="nearest")], {"scales": scales}
    )
    lowered, _ = lower(model, "fp16")
    onnx.checker.check_model(lowered, full_check=True)
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(run(lowered, {"x": x})[0], run(model, {"x": x})[0], rtol=1e-3)


def test_a_branch_that_uses_a_tensor_by_name_still_finds_it_in_fp32() -> None:
    def branch(name: str, operator: str) -> onnx.GraphProto:
        node = helper.make_node(operator, ["relu"], [name])
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])

    model = model_of(
        [
            helper.make_node("Relu", ["x"], ["relu"], name="relu"),
            helper.make_node(
                "If", ["condition"], ["y"], name="if", then_branch=branch("a", "Neg"), else_branch=branch("b", "Abs")
            ),
        ],
        {"condition": np.array(True)},
    )
    lowered, report = lower(model, "fp16")
    assert report.kept == {"if": "If has no 16-bit form"}
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(run(lowered, {"x": x})[0], run(model, {"x": x})[0], rtol=1e-3)


UNARY = ("Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Identity")
BINARY = ("Add", "Mul", "Sub", "Max")


@settings(max_examples=60)
@given(data=st.data())
def test_any_graph_of_elementwise_nodes_stays_valid_and_close(data: st.DataObject) -> None:
    tensors, nodes = ["x"], []
    for index in range(data.draw(st.integers(1, 8))):
        name = f"t{index}"
        if data.draw(st.booleans()):
            inputs = [data.draw(st.sampled_from(tensors))]
            operator = data.draw(st.sampled_from(UNARY))
        else:
            inputs = [data.draw(st.sampled_from(tensors)), data.draw(st.sampled_from([*tensors, "weight"]))]
            operator = data.draw(st.sampled_from(BINARY))
        nodes.append(helper.make_node(operator, inputs, [name], name=f"n{index}"))
        tensors.append(name)
    nodes[-1].output[0] = "y"
    model = model_of(nodes, {"weight": np.full((1, 3, 1, 1), 0.5, np.float32)})
    names = [node.name for node in nodes]
    keep = dict.fromkeys(data.draw(st.lists(st.sampled_from(names), unique=True)), "keep_fp32")
    lowered, report = lower(model, "fp16", keep=keep)
    onnx.checker.check_model(lowered, full_check=True)
    assert report.kept == keep
    assert report.low == len(nodes) - len(keep)
    x = np.random.default_rng(1).uniform(-1, 1, (2, 3, 4, 4)).astype(np.float32)
    wanted, got = run(model, {"x": x})[0], run(lowered, {"x": x})[0]
    assert np.abs(got - wanted).max() <= 0.02 * max(1.0, float(np.abs(wanted).max()))


def test_nothing_is_cast_between_quantized_convolutions() -> None:
    """What stands there moves between int8 values, or is part of the kernel before it."""
    net = Net()
    one = net.node("Relu", "relu0", net.conv("x", "conv0"))
    sizes = net.constant("sizes", [1.0, 1.0, 2.0, 2.0])
    larger = net.node("Resize", "resize", one, "", sizes, mode="nearest")
    other = net.node("Relu", "relu1", net.conv(larger, "conv1"))
    joined = net.node("Add", "add", other, larger)
    last = net.conv(joined, "conv2", quantized=False)
    net.node("Sigmoid", "sigmoid", last)
    lowered, report = lower(net.model(), "fp16")
    casts = [node.input[0] for node in lowered.graph.node if node.op_type == "Cast"]
    assert casts == ["add.out", "sigmoid.out__fp16"]
    assert {name for name, reason in report.kept.items() if reason == "part of an INT8 kernel"} == {
        "conv0", "relu0", "resize", "conv1", "relu1", "add",
    }  # fmt: skip
