"""ONNX files made elsewhere, as the exporter takes them in."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from exporter.artifacts.given_onnx import take_onnx
from tests.fuzz.engine import Reader


def _seed() -> bytes:
    floats = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y")]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 4], [0.5] * 16)
    turns = helper.make_node("Constant", [], ["turns"], value=helper.make_tensor("t", TensorProto.INT64, [], [3]))
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, [])],
    )
    nodes = [
        turns,
        helper.make_node("Loop", ["turns", ""], [], body=body),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", floats[:1], floats[1:], [weight]))
    return bytes(onnx.ModelProto.SerializeToString(model))


def _take(file: Path) -> None:
    take_onnx(file, file.name, file.with_suffix(".taken"))


GIVEN_ONNX = Reader(
    "given_onnx", _take, ".onnx", lambda: [_seed()], (b"\x0a", b"\x12\x80", b"Loop", b"\xff" * 9, b"\x00")
)
