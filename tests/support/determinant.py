"""A network that TensorRT's parsers refuse, by one node of a standard operator."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.support.trt_workspaces import head


def with_determinant() -> onnx.ModelProto:
    """A head with the determinant of its first image added to that, which TensorRT's parser has no layer for."""
    model = head()
    graph = model.graph
    image = graph.node[0].output[0]
    graph.node[0].output[0] = "before"
    graph.initializer.append(numpy_helper.from_array(np.array([2, 3], np.int64), "axes"))
    nodes = [
        helper.make_node("Det", ["before"], ["det"], name="/odd/Det"),
        helper.make_node("Unsqueeze", ["det", "axes"], ["spread"], name="/odd/Unsqueeze"),
        helper.make_node("Add", ["before", "spread"], [image], name="/odd/Add"),
    ]
    for position, node in enumerate(nodes, start=1):
        graph.node.insert(position, node)
    return model
