"""Layers of a quantized graph back in floating point: their Q/DQ nodes cut out, their weights as before rounding."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from shared.lazy import lazy_import
from shared.onnx_graph import MATRIX_OPERATORS, names_read, node_name
from shared.qdq_lint import QdqGraph, is_used

if TYPE_CHECKING:
    import onnx
else:
    onnx = lazy_import("onnx")


def cut_out(
    model: onnx.ModelProto, nodes: Collection[str], weights: Mapping[str, npt.NDArray[np.float32]]
) -> onnx.ModelProto:
    """A copy of a graph in which some quantized nodes compute in floating point.

    Their own Q/DQ pairs go, and then those that no INT8 kernel reads any more: of a skip connection, for example.

    Args:
        model: the graph; not changed.
        nodes: names of matrix nodes; those that are not quantized stay as they are.
        weights: weights before they were rounded to int8's steps, by the name of the initializer that holds them
            rounded; where one is missing, the rounded ones stay.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = QdqGraph(result.graph)
    exact: dict[str, npt.NDArray[np.float32]] = {}
    for node in result.graph.node:
        if node.op_type not in MATRIX_OPERATORS or node_name(node) not in nodes:
            continue
        for position, name in enumerate(node.input[:2]):
            pair = graph.dequantized(name)
            if pair is None:
                continue
            source = _before(graph, pair)
            if source is None:
                continue
            if source in weights:
                exact[source] = weights[source]
            reader, place = _reader(graph, node, position, pair.output[0])
            reader.input[place] = source
    _restore(result.graph, exact)
    _drop_unused_pairs(result.graph)
    _prune(result.graph)
    return result


def _before(graph: QdqGraph, dequantize: Any) -> str | None:
    """The tensor in floating point that a pair rounds; None where the file holds int8 alone."""
    quantize = graph.producer.get(dequantize.input[0])
    if quantize is None or quantize.op_type != "QuantizeLinear":
        return None
    return str(quantize.input[0])


def _reader(graph: QdqGraph, node: Any, position: int, dequantized: str) -> tuple[Any, int]:
    """The node that reads a dequantized tensor on the way to an input of ``node``, and at which place."""
    place = position
    while node.input[place] != dequantized:
        node, place = graph.producer[node.input[place]], 0
    return node, place


def _restore(graph: onnx.GraphProto, exact: Mapping[str, npt.NDArray[np.float32]]) -> None:
    for tensor in graph.initializer:
        if tensor.name in exact:
            tensor.CopyFrom(onnx.numpy_helper.from_array(exact[tensor.name], tensor.name))


def _drop_unused_pairs(graph: onnx.GraphProto) -> None:
    """Take out the pairs that no INT8 kernel reads; one may stand behind another."""
    while True:
        edges = QdqGraph(graph)
        for node in graph.node:
            if node.op_type == "DequantizeLinear" and edges.consumers[node.output[0]] and not is_used(edges, node):
                source = _before(edges, node)
                if source is not None:
                    for reader in edges.consumers[node.output[0]]:
                        for place, name in enumerate(reader.input):
                            if name == node.output[0]:
                                reader.input[place] = source
                    break
        else:
            return


def _prune(graph: onnx.GraphProto) -> None:
    """Remove nodes and initializers that nothing reads."""
    wanted = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(names_read(node))
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    tensors = [tensor for tensor in graph.initializer if tensor.name in wanted]
    del graph.initializer[:]
    graph.initializer.extend(tensors)
