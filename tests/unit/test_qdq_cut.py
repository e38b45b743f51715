"""Layers of a quantized graph go back to floating point: what is left computes as if they had never been quantized."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from shared.onnx_graph import is_quantized
from shared.qdq_cut import cut_out
from shared.qdq_lint import lint, quantized_nodes
from tests.support.choosing import quantized_workspace
from tests.support.qdq_graphs import Net, residual_block
from tests.support.trt_workspaces import HEAD, head, quantize
from trt_builder.choices.source import Source


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    shape = [size if isinstance(size, int) else 1 for size in given.shape]
    return session.run(None, {given.name: np.random.default_rng(3).normal(0, 1, shape).astype(np.float32)})


def names_of(model: onnx.ModelProto) -> list[str]:
    return quantized_nodes(model)[0]


def test_without_any_int8_the_float_model_is_left(tmp_path: Path) -> None:
    source = Source.open(quantized_workspace(tmp_path).root)
    rounded = onnx.load(str(source.workspace.onnx(f"onnx/{HEAD}.onnx")))
    exact = {name.partition("/")[2]: value for name, value in source.weights().items()}
    cut = cut_out(rounded, names_of(rounded), exact)
    assert not is_quantized(cut)
    onnx.checker.check_model(cut)
    for ours, right in zip(run(cut), run(head()), strict=True):
        np.testing.assert_array_equal(ours, right)


@pytest.mark.parametrize("skip", [["/backbone/"], ["/head/"], [r"blocks\.1", r"/head/\w+\.1$"]])
def test_some_layers_are_those_that_were_never_quantized(tmp_path: Path, skip: list[str]) -> None:
    """A graph of which layers were cut out is the one in which they were skipped when it was quantized."""
    source = Source.open(quantized_workspace(tmp_path).root)
    rounded = onnx.load(str(source.workspace.onnx(f"onnx/{HEAD}.onnx")))
    wanted = quantize(head(), skip=skip)
    leaving = set(names_of(rounded)) - set(names_of(wanted))
    assert leaving and leaving != set(names_of(rounded))
    exact = {name.partition("/")[2]: value for name, value in source.weights().items()}
    cut = cut_out(rounded, leaving, exact)
    assert names_of(cut) == names_of(wanted)
    assert [node.op_type for node in cut.graph.node] == [node.op_type for node in wanted.graph.node]
    for ours, right in zip(run(cut), run(wanted), strict=True):
        np.testing.assert_allclose(ours, right, atol=1e-5)


def test_a_pair_of_a_skip_connection_stays_as_long_as_its_tensor_is_read_in_int8() -> None:
    model = residual_block()
    assert names_of(model) == ["conv0", "conv1", "conv2"]
    for leaving, stays in (({"conv1"}, True), ({"conv0", "conv1"}, False)):
        cut = cut_out(model, leaving, {})
        assert set(names_of(cut)) == {"conv0", "conv1", "conv2"} - leaving
        assert any(node.name.startswith("skip") for node in cut.graph.node) == stays
        assert not lint(cut)


def test_what_the_bodies_of_an_if_read_stays() -> None:
    net = Net()
    inner = net.conv("x", "conv")
    moved, shift = net.node("Relu", "relu", inner), net.constant("shift", 2.0)
    then, otherwise = (
        helper.make_graph(
            [helper.make_node(operator, [moved, shift], [f"{operator}.out"])],
            operator,
            [],
            [helper.make_tensor_value_info(f"{operator}.out", TensorProto.FLOAT, None)],
        )
        for operator in ("Add", "Mul")
    )
    net.node("If", "if", net.constant("condition", True, np.bool_), then_branch=then, else_branch=otherwise)
    model = net.model()
    # `Net` takes for an output what no node reads directly.
    del model.graph.output[0]
    assert [value.name for value in model.graph.output] == ["if.out"]
    cut = cut_out(model, {"conv"}, {})
    assert not is_quantized(cut)
    (before,), (after,) = run(model), run(cut)
    np.testing.assert_allclose(after, before, atol=0.5)


def test_the_graph_that_is_given_stays_as_it_is() -> None:
    model = residual_block()
    before = model.SerializeToString()
    cut_out(model, {"conv0", "conv1"}, {"conv0.weight": np.zeros((32, 32, 3, 3), np.float32)})
    assert model.SerializeToString() == before


def test_weights_are_those_before_rounding() -> None:
    exact = np.random.default_rng(1).normal(0, 1, (32, 32, 3, 3)).astype(np.float32)
    cut = cut_out(residual_block(), {"conv0"}, {"conv0.weight": exact})
    kept = next(tensor for tensor in cut.graph.initializer if tensor.name == "conv0.weight")
    np.testing.assert_array_equal(numpy_helper.to_array(kept), exact)
