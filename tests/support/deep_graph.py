"""A graph of a dozen layers without branches, that every backend takes."""

from __future__ import annotations

from typing import Any

import numpy as np

WIDTH = 16
LAYERS = [f"/layer{number}/MatMul" for number in range(12)]


def deep_graph() -> Any:
    """Linear layers with Tanh between them, ``x`` (rows, 16) to ``y``."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes, weights, current = [], [], "x"
    for number, name in enumerate(LAYERS):
        weight = rng.normal(0, WIDTH**-0.5, (WIDTH, WIDTH)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{number}"))
        nodes.append(helper.make_node("MatMul", [current, f"w{number}"], [f"m{number}"], name=name))
        current = "y" if number == len(LAYERS) - 1 else f"t{number}"
        nodes.append(helper.make_node("Tanh", [f"m{number}"], [current], name=f"/layer{number}/Tanh"))
    graph = helper.make_graph(
        nodes,
        "deep",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", WIDTH])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def inputs() -> dict[str, Any]:
    """Eight rows."""
    return {"x": np.random.default_rng(1).normal(size=(8, WIDTH)).astype(np.float32)}
