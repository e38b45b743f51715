"""The linter of Q/DQ nodes: a sound graph has no findings, and each planted fault is found, named and explained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from exporter.cli import cli
from shared.errors import ExportError
from shared.qdq_lint import check, float_sums, lint, quantized_nodes
from tests.support.qdq_graphs import Net, residual_block


def chain(layers: int, quantized: list[bool]) -> Net:
    """Convolutions and ReLUs."""
    net, tensor = Net(), "x"
    for index in range(layers):
        tensor = net.conv(tensor, f"conv{index}", quantized=quantized[index])
        tensor = net.node("Relu", f"relu{index}", tensor)
    return net


def node_of(model: onnx.ModelProto, name: str) -> Any:
    return next(node for node in model.graph.node if node.name == name)


def set_constant(model: onnx.ModelProto, name: str, value: Any) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(value, name))


@settings(max_examples=25)
@given(st.lists(st.booleans(), min_size=1, max_size=6))
def test_a_sound_chain_of_any_mixture_has_no_findings(quantized: list[bool]) -> None:
    model = chain(len(quantized), quantized).model()
    assert lint(model) == []
    assert [len(names) for names in quantized_nodes(model)] == [sum(quantized), len(quantized) - sum(quantized)]


def _no_activation_pair(model: onnx.ModelProto, layer: str) -> None:
    node_of(model, layer).input[0] = node_of(model, f"{layer}/input.Q").input[0]


def _no_weight_pair(model: onnx.ModelProto, layer: str) -> None:
    node_of(model, layer).input[1] = f"{layer}.weight"


def _weight_axis(model: onnx.ModelProto, layer: str) -> None:
    for kind in ("Q", "DQ"):
        node_of(model, f"{layer}/weight.{kind}").attribute[0].i = 1


def _one_weight_scale(model: onnx.ModelProto, layer: str) -> None:
    set_constant(model, f"{layer}/weight.scale", np.float32(0.01))
    set_constant(model, f"{layer}/weight.zero", np.int8(0))


def _activation_per_channel(model: onnx.ModelProto, layer: str) -> None:
    set_constant(model, f"{layer}/input.scale", np.full(4, 0.05, np.float32))


def _uint8(model: onnx.ModelProto, layer: str) -> None:
    set_constant(model, f"{layer}/input.zero", np.uint8(0))


def _zero_point(model: onnx.ModelProto, layer: str) -> None:
    set_constant(model, f"{layer}/input.zero", np.int8(3))


def _no_zero_point(model: onnx.ModelProto, layer: str) -> None:
    del node_of(model, f"{layer}/input.Q").input[2]


def _scale_of_nan(model: onnx.ModelProto, layer: str) -> None:
    set_constant(model, f"{layer}/input.scale", np.float32("nan"))


def _other_scale_at_dq(model: onnx.ModelProto, layer: str) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.06), "other"))
    node_of(model, f"{layer}/input.DQ").input[1] = "other"


FAULTS: dict[str, tuple[Callable[[onnx.ModelProto, str], None], str, str]] = {
    "activation not quantized": (_no_activation_pair, "{0}", "the first input is not quantized"),
    "weight not quantized": (_no_weight_pair, "{0}", "the second input is not quantized"),
    "weight scales on the wrong axis": (_weight_axis, "{0}", "along axis 1; its 4 output channels are axis 0"),
    "weight with one scale": (_one_weight_scale, "{0}", "one scale for 4 output channels"),
    "activation with a scale a channel": (_activation_per_channel, "{0}", "an activation with 4 scales"),
    "uint8": (_uint8, "{0}/input.Q", "its zero point is uint8"),
    "zero point": (_zero_point, "{0}/input.Q", "its zero point is not 0"),
    "no zero point": (_no_zero_point, "{0}/input.Q", "has no zero point, which means uint8"),
    "scale of NaN": (_scale_of_nan, "{0}/input.Q", "not positive and finite"),
    "Q and DQ of different scales": (_other_scale_at_dq, "{0}/input.DQ", "another scale or axis"),
}


@pytest.mark.parametrize("fault", FAULTS)
@settings(max_examples=8)
@given(st.integers(1, 4), st.data())
def test_a_planted_fault_is_found_at_its_node(fault: str, layers: int, data: st.DataObject) -> None:
    plant, node, reason = FAULTS[fault]
    model = chain(layers, [True] * layers).model()
    layer = f"conv{data.draw(st.integers(0, layers - 1))}"
    plant(model, layer)
    found = {finding.node: finding.problem for finding in lint(model)}
    assert reason in found[node.format(layer)]
    assert all(name.startswith(layer) for name in found), "sound layers are left alone"


@pytest.mark.parametrize("attribute", ["value", "value_float", "value_floats"])
def test_scales_of_constant_nodes_are_constants(attribute: str) -> None:
    model = chain(1, [True]).model()
    name = "conv0/weight.scale" if attribute == "value_floats" else "conv0/input.scale"
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    model.graph.initializer.remove(tensor)
    value = tensor if attribute == "value" else numpy_helper.to_array(tensor).tolist()
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [name], **{attribute: value}))
    assert lint(model) == []


def test_a_pair_around_nothing_or_before_what_has_no_int8_kernel() -> None:
    net = Net()
    net.node("Sigmoid", "sigmoid", net.pair("x", "before_sigmoid"))
    net.pair("x", "before_nothing")
    found = {finding.node: finding for finding in lint(net.model())}
    assert set(found) == {"before_sigmoid.DQ", "before_nothing.DQ"}
    assert {finding.rule for finding in found.values()} == {"fusion"}
    assert "nothing that TensorRT computes in INT8" in str(found["before_sigmoid.DQ"])


def test_a_pair_reaches_its_convolution_through_nodes_that_int8_passes() -> None:
    net = Net()
    pooled = net.node("MaxPool", "pool", net.pair("x", "pair"), kernel_shape=[2, 2])
    weight = net.pair(net.constant("conv.weight", np.ones((4, 4, 3, 3))), "weight", np.full(4, 0.1), 0)
    net.node("Conv", "conv", pooled, weight)
    # The matrix node itself reads no DQ: that is what the linter names, not the pair.
    assert [finding.node for finding in lint(net.model())] == ["conv"]


def test_doubled_pairs() -> None:
    net = Net()
    net.conv(net.pair("x", "first"), "conv")
    found = lint(net.model())
    assert [(finding.node, finding.rule) for finding in found] == [("conv/input.Q", "pairs")]
    assert "'first.DQ'" in found[0].problem


@pytest.mark.parametrize("operator", ["Add", "Concat"])
@pytest.mark.parametrize("same", [True, False])
def test_inputs_of_add_and_concat_have_one_scale(operator: str, same: bool) -> None:
    net = Net()
    sides = [net.pair(net.conv("x", f"conv{side}"), f"side{side}", 0.1 if same or not side else 0.2) for side in (0, 1)]
    net.conv(net.node(operator, "join", *sides, **({"axis": 1} if operator == "Concat" else {})), "after")
    found = lint(net.model())
    assert [(finding.node, finding.rule) for finding in found] == ([] if same else [("join", "scales")])


def test_a_quantized_skip_connection_is_part_of_the_convolution_before_it() -> None:
    assert lint(residual_block()) == []
    # With a convolution in floating point there is no INT8 kernel to take it.
    net = Net()
    skip = net.pair("x", "skip")
    net.conv(net.node("Add", "add", net.conv("x", "conv0", quantized=False), skip), "conv1")
    assert [(finding.node, finding.rule) for finding in lint(net.model())] == [("skip.DQ", "fusion")]


@pytest.mark.parametrize(
    ("skip", "reader", "found"),
    [("int8", "int8", []), ("int8", "float", ["conv0"]), ("float", "int8", ["conv0"]), ("int8", "both", ["conv0"])],
)
def test_sums_of_int8_kernels_that_are_not_int8_on_every_side(skip: str, reader: str, found: list[str]) -> None:
    net = Net()
    added = net.node("Add", "add", net.conv("x", "conv0"), net.pair("x", "skip") if skip == "int8" else "x")
    total = net.node("Relu", "relu", added)
    if reader != "float":
        net.conv(total, "conv1")
    if reader != "int8":
        net.node("GlobalAveragePool", "pool", total)
    assert float_sums(net.model()) == found


def test_a_tensor_with_two_scales_is_kept_twice() -> None:
    net = Net()
    net.conv("x", "conv0", scale=0.1)
    net.conv("x", "conv1", scale=0.1)
    assert lint(net.model()) == []
    net.conv("x", "conv2", scale=0.2)
    found = lint(net.model())
    assert [(finding.node, finding.rule) for finding in found] == [("conv2/input.Q", "scales")]


def test_constants_may_be_shared() -> None:
    """As simplifiers leave them: one node for all zero points."""
    net = Net()
    net.conv(net.conv("x", "conv0", scale=0.1), "conv1", scale=0.2)
    model = net.model()
    zero = numpy_helper.from_array(np.int8(0), "zero")
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["shared"], name="constant", value=zero))
    for node in model.graph.node:
        if node.name.startswith(("conv0/input", "conv1/input")):
            node.input[2] = "shared"
    assert lint(model) == []


@pytest.mark.parametrize("pattern", ["conv1", r"^conv1$", r"^conv[12]"])
def test_excluded_layers_are_not_quantized(pattern: str) -> None:
    assert lint(chain(3, [True, False, True]).model(), [r"^conv1$"]) == []
    found = lint(chain(3, [True, True, False]).model(), [pattern])
    assert [(finding.node, finding.rule) for finding in found] == [("conv1", "excluded")]
    assert pattern in found[0].problem


def test_gemm_matmul_and_transposed_convolutions_have_their_own_axis() -> None:
    def matrix(operator: str, shape: tuple[int, ...], axis: int | None, **attributes: Any) -> list[str]:
        net = Net()
        channels = 1.0 if axis is None else np.full(shape[axis], 0.1)
        weight = net.pair(net.constant("layer.weight", np.ones(shape)), "weight", channels, axis)
        net.node(operator, "layer", net.pair("x", "input"), weight, **attributes)
        return [finding.rule for finding in lint(net.model())]

    assert matrix("Gemm", (6, 3), 0, transB=1) == []
    assert matrix("Gemm", (6, 3), 1, transB=1) == ["weights"]
    assert matrix("Gemm", (3, 6), 1) == []
    assert matrix("MatMul", (3, 6), 1) == []
    assert matrix("MatMul", (3, 6), 0) == ["weights"]
    assert matrix("ConvTranspose", (3, 6, 2, 2), None) == []
    assert matrix("ConvTranspose", (3, 6, 2, 2), 1) == []
    assert matrix("ConvTranspose", (3, 6, 2, 2), 0) == ["weights"]


def test_check_names_the_first_and_counts_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    model = chain(3, [True] * 3).model()
    onnx.save(model, str(path))
    check(path)
    for layer in ("conv0", "conv2"):
        _no_weight_pair(model, layer)
    onnx.save(model, str(path))
    with pytest.raises(ExportError, match=r"net\.onnx: .*weight.*\(and \d more\)") as raised:
        check(path)
    assert raised.value.exit_code == 5
    assert len(str(raised.value).splitlines()) == 1


def test_the_command_prints_findings_and_ends_with_their_exit_code(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"

    def run(model: onnx.ModelProto, *options: str) -> Any:
        onnx.save(model, str(path))
        return CliRunner().invoke(cli, ["quantize", "lint", str(path), *options])

    model = chain(3, [True, True, False]).model()
    sound = run(model)
    assert (sound.exit_code, sound.output.splitlines()[0]) == (0, "2 of 3 matrix nodes are quantized, 0 findings")
    excluded = run(model, "--exclude", "conv1$", "--exclude", "conv2$")
    assert excluded.exit_code == 5
    assert "conv1 (Conv): is quantized although 'conv1$' excludes it" in excluded.output
    told = json.loads(run(model, "--exclude", "conv1$", "--json").stdout)
    assert [finding["node"] for finding in told["findings"]] == ["conv1"]
    assert told["not_quantized"] == ["conv2"]
    net = Net()
    net.conv(net.node("Add", "add", net.conv("x", "conv0"), "x"), "conv1")
    assert "no kernel for 1 sums: an INT8 kernel adds int8 to int8" in run(net.model()).output
    assert json.loads(run(net.model(), "--json").stdout)["float_sums"] == ["conv0"]
    in_float = run(chain(2, [False, False]).model())
    assert in_float.exit_code == 3
    assert "has no quantized node" in in_float.output
    path.write_bytes(path.read_bytes()[:50])
    broken = CliRunner().invoke(cli, ["quantize", "lint", str(path)])
    assert broken.exit_code == 3
    assert "not a whole ONNX file" in broken.output
    assert "Traceback" not in broken.output


def test_what_is_no_regular_expression_is_one_line(tmp_path: Path) -> None:
    onnx.save(chain(1, [True]).model(), str(tmp_path / "net.onnx"))
    answer = CliRunner().invoke(cli, ["quantize", "lint", str(tmp_path / "net.onnx"), "--exclude", "*.conv1"])
    assert answer.exit_code == 2
    assert "--exclude: '*.conv1' is not a regular expression (nothing to repeat at position 0)" in answer.output
