"""ONNX files made elsewhere: a loop that may never end is refused before the file is run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exporter.adopt import tensors_of
from exporter.artifacts.given_onnx import take_onnx
from shared.errors import InputError

onnx = pytest.importorskip("onnx")
helper, TensorProto = onnx.helper, onnx.TensorProto


def loop(turns: int | None, *, nested: bool = False) -> onnx.ModelProto:
    """A model with a Loop of so many turns; None: as many as its input says, and its condition stays true."""
    condition = [helper.make_tensor_value_info(name, onnx.TensorProto.BOOL, []) for name in ("go", "on")]
    number = helper.make_tensor_value_info("i", onnx.TensorProto.INT64, [])
    nodes = [helper.make_node("Identity", ["go"], ["on"])]
    body = helper.make_graph(nodes, "body", [number, condition[0]], [condition[1]])
    if nested:
        inner = helper.make_node("Loop", ["turns", "always"], [], name="inner", body=body)
        body = helper.make_graph([*nodes, inner], "outer", [number, condition[0]], [condition[1]])
    constants = [onnx.numpy_helper.from_array(np.array(True), "always")]
    if turns is not None:
        constants.append(onnx.numpy_helper.from_array(np.array(turns), "turns"))
    node = helper.make_node("Loop", ["" if turns is None else "turns", "always"], [], name="for ever", body=body)
    floats = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    same = helper.make_node("Identity", ["x"], ["y"])
    return helper.make_model(helper.make_graph([node, same], "g", floats[:1], floats[1:], constants))


@pytest.mark.parametrize(
    ("model", "is_taken"),
    [(loop(10), True), (loop(None), False), (loop(10**12), False), (loop(-1), False), (loop(10, nested=True), False)],
    ids=["ten turns", "no number", "10**12", "minus one", "loop in a loop"],
)
def test_loops(tmp_path: Path, model: onnx.ModelProto, is_taken: bool) -> None:
    source = tmp_path / "head.onnx"
    onnx.save(model, source)
    if is_taken:
        take_onnx(source, "head.onnx", tmp_path / "taken.onnx")
        assert (tmp_path / "taken.onnx").read_bytes() == source.read_bytes()
    else:
        with pytest.raises(InputError, match="may go on for ever"):
            take_onnx(source, "head.onnx", tmp_path / "taken.onnx")


@pytest.mark.parametrize("size", [None, -1, 0])
def test_an_axis_without_a_size_and_a_name_gets_one(tmp_path: Path, size: int | None) -> None:
    def info(name: str, shape: list[int | str | None]) -> onnx.ValueInfoProto:
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for axis in value.type.tensor_type.shape.dim:
            if size is not None and not axis.WhichOneof("value"):
                axis.dim_value = size
        return value

    node = helper.make_node("Identity", ["images"], ["rows"])
    graph = helper.make_graph([node], "it", [info("images", [None, 3, None, "width"])], [info("rows", [None] * 4)])
    onnx.save(helper.make_model(graph), str(tmp_path / "it.onnx"))
    inputs, outputs = tensors_of(tmp_path / "it.onnx")
    assert inputs[0].shape == ["batch_size", 3, "images_axis_2", "width"]
    assert outputs[0].shape == ["batch_size", "rows_axis_1", "rows_axis_2", "rows_axis_3"]
