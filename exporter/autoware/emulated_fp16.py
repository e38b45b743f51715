"""A typed graph as it rounds: the same graph in FP32, with every FP16 result rounded to FP16.

ONNX Runtime has few FP16 kernels on a CPU. It computes such nodes in FP32 and leaves out the casts between them, so
that neither rounding nor overflow would be seen. Here both are in the graph; sums are FP32, as in FP16 kernels with
FP32 accumulators.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from shared.lazy import lazy_import
from shared.onnx_graph import tensor_types

if TYPE_CHECKING:
    import onnx
else:
    onnx = lazy_import("onnx")


def emulate(typed: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a graph with FP16 nodes that any backend computes alike.

    Args:
        typed: FP16 by the types in it; its inputs and outputs are not.
    """
    emulated = onnx.ModelProto()
    emulated.CopyFrom(typed)
    graph, types = emulated.graph, tensor_types(typed)
    half = {name for name, kind in types.items() if kind == onnx.TensorProto.FLOAT16}
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT16:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    nodes = [each for node in typed.graph.node for each in _emulated(node, half)]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return emulated


def _emulated(node: onnx.NodeProto, half: set[str]) -> Iterator[onnx.NodeProto]:
    """A node in FP32, and the rounding of each FP16 output after it."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    rounded = [name for name in node.output if name in half]
    for attribute in copy.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT16:
            attribute.i = onnx.TensorProto.FLOAT
    for index, name in enumerate(copy.output):
        if name in half:
            copy.output[index] = f"{name}__exact"
    yield copy
    for name in rounded:
        # Two casts that are in the graph itself are kept: only those that ONNX Runtime adds cancel out.
        yield onnx.helper.make_node("Cast", [f"{name}__exact"], [f"{name}__half"], to=onnx.TensorProto.FLOAT16)
        yield onnx.helper.make_node("Cast", [f"{name}__half"], [name], to=onnx.TensorProto.FLOAT)
