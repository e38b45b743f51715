"""Conversions between INT8 and floating point are seen in the graph as TensorRT's engines have them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from exporter.cli import cli
from shared.int8_passes import WORTHLESS, find_passes
from tests.support.kept import kept
from tests.support.qdq_graphs import Net, residual_block
from tests.support.trt_workspaces import FULL, head, quantize

_HEADS = r"/(heatmap|reg|height|dim|rot|vel)"
# Of the head of the 121 m size: what is left out of INT8, and how much faster than FP16 the engine was on an H200 with
# TensorRT 8.6.0 (docs/quantization.md).
MEASURED = [
    ((), 1.52),
    ((r"blocks\.0/",), 1.24),
    ((r"blocks\.0/", rf"{_HEADS}\.[01]/"), 1.17),
    ((r"blocks\.0/", rf"{_HEADS}\.1/"), 1.10),
]


def chain(*quantized: bool) -> onnx.ModelProto:
    net, tensor = Net(), "x"
    for index, inside in enumerate(quantized):
        tensor = net.node("Relu", f"relu{index}", net.conv(tensor, f"conv{index}", quantized=inside))
    return net.model()


def test_kernels_in_a_row_hand_on_int8() -> None:
    found = find_passes(chain(True, True, True))
    assert [(each.tensor, each.quantizes) for each in found.passes] == [("x", True)]
    assert found.layers == 3


def test_an_island_is_converted_on_both_sides() -> None:
    found = find_passes(chain(False, True, False))
    assert [(each.reader, each.quantizes) for each in found.passes] == [("conv1", True), ("conv2", False)]
    assert all(each.elements == 4 * 16 * 16 for each in found.passes)


def test_of_an_axis_of_any_size_one_is_counted() -> None:
    model = chain(False, True, False)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    assert [each.elements for each in find_passes(model).passes] == [4 * 16 * 16] * 2


def test_what_both_kinds_read_is_converted_back_and_quantized_again() -> None:
    net = Net()
    both = net.node("Relu", "relu0", net.conv("x", "conv0"))
    net.conv(both, "conv1")
    net.conv(both, "conv2", quantized=False)
    found = find_passes(net.model())
    assert {(each.tensor, each.quantizes) for each in found.passes} == {("x", True), (both, True), (both, False)}


def test_of_a_concatenation_what_is_in_float_is_quantized() -> None:
    net = Net()
    inside = net.node("Relu", "relu0", net.conv("x", "conv0"))
    outside = net.node("Relu", "relu1", net.conv("x", "conv1", quantized=False))
    net.channels = 8
    net.conv(net.node("Concat", "concat", inside, outside, axis=1), "conv2")
    found = find_passes(net.model())
    assert {(each.tensor, each.quantizes) for each in found.passes} == {("x", True), (outside, True)}


def test_a_residual_block_in_int8_has_no_conversion_within() -> None:
    assert {each.tensor for each in find_passes(residual_block()).passes} == {"x"}


def test_a_graph_without_qdq_nodes_has_none() -> None:
    found = find_passes(chain(False, False))
    assert (found.layers, found.passes, found.share, found.advice()) == (0, (), 0.0, None)


def test_the_more_conversions_move_the_less_int8_was_worth() -> None:
    """The measured engines, fastest first, in the order of the shares; none of them deserved a warning."""
    plain = head(1020, FULL)
    shares = [find_passes(quantize(plain, skip=skip)).share for skip, _ in MEASURED]
    assert shares == sorted(shares)
    assert [speed for _, speed in MEASURED] == sorted((speed for _, speed in MEASURED), reverse=True)
    assert shares[-1] < WORTHLESS


def test_the_conversions_are_those_of_a_real_engine() -> None:
    """The demo's head by its shipped list, 0.83 times as fast as FP16: what is predicted is what TensorRT 8.6.0 did."""
    recorded = json.loads(kept("trt/8.6.0-h200-demo-head-int8.json"))
    graph = onnx.load_from_string(kept("trt/demo-head-int8.onnx"))
    found = find_passes(graph, {"batch_size": 1, "height": 608, "width": 608})
    advice = found.advice()
    assert advice is not None and "12 conversions" in advice
    layers = recorded["layers"]
    made_int8 = [layer for layer in layers if layer["kind"] == "Reformat" and layer["outputs"][0][1] == "int8"]
    alone = [layer["name"] for layer in made_int8 if layer["inputs"][0][1] != "int8"]
    readers = [each.reader for each in found.passes if each.quantizes]
    assert len(alone) == len(readers) == 4
    assert sum(name.startswith("/shared_conv/") for name in alone) == readers.count("/shared_conv/conv/Conv") == 2
    for block in ("blocks.1.0", "blocks.2.0"):
        assert any(block in name for name in alone) and any(block in name for name in readers)


def test_the_sizes_of_named_axes_are_not_needed_for_the_verdict() -> None:
    graph = onnx.load_from_string(kept("trt/demo-head-int8.onnx"))
    known = find_passes(graph, {"batch_size": 1, "height": 608, "width": 608}).share
    assert find_passes(graph).share == pytest.approx(known, rel=0.02)


def test_the_linter_says_so_before_a_build(tmp_path: Path) -> None:
    path = tmp_path / "islands.onnx"
    onnx.save(chain(False, True, False), str(path))
    answer = CliRunner().invoke(cli, ["quantize", "lint", str(path)])
    assert answer.exit_code == 0, answer.output
    assert "2 conversions between INT8 and floating point" in answer.output
    assert "INT8 is likely no faster than FP16: 1 layers" in answer.output


def test_weights_are_no_conversions() -> None:
    assert not any("weight" in each.tensor for each in find_passes(quantize(head())).passes)
    assert np.isfinite(find_passes(quantize(head())).share)
