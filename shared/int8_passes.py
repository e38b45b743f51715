"""What INT8 costs around its layers: passes over tensors that only convert them, and whether they eat what INT8 saves.

An INT8 kernel writes what the next INT8 kernel reads. Where a tensor comes from, or also goes to, a layer in floating
point, TensorRT converts it in a pass of its own, seen in the layers of its engines (docs/quantization.md). So islands
of INT8 between layers in floating point can be slower than FP16 throughout. What is compared here are bytes: those that
the passes move, and those that INT8 layers save over FP16. Pure ONNX, before anything is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from shared.lazy import lazy_import
from shared.onnx_graph import MATRIX_OPERATORS, has_size, node_name
from shared.qdq_lint import QdqGraph, quantized_nodes

if TYPE_CHECKING:
    import onnx
else:
    onnx = lazy_import("onnx")

#: Bytes that passes move, as a share of those that INT8 saves, from which on FP16 is likely to be as fast. On an H200
#: with TensorRT 8.6.0, shares of 0.14, 0.28, 0.43, 0.57, 1.20 were 1.52, 1.24, 1.17, 1.10, 0.83 times as fast as FP16.
WORTHLESS = 0.75
# A pass reads FP16 and writes INT8, or the other way round; a layer in INT8 reads and writes a byte less per element.
_MOVED, _SAVED = 3, 1
# Size of an axis that nothing is known of; the batch, the first axis, is 1. Both sides grow alike with it.
_UNKNOWN = 512
# Computed along with the matrix node before them.
_TAKEN_IN = frozenset({"Add", "BatchNormalization", "Clip", "LeakyRelu", "Mul", "Relu", "Sigmoid"})
# What is quantized behind these is quantized before them, input by input.
_PASSED = frozenset({"Concat", "Identity", "MaxPool", "Reshape", "Resize", "Transpose"})


@dataclass(frozen=True)
class Pass:
    """A tensor that is converted in a pass of its own.

    Attributes:
        tensor: its name.
        reader: the node that it is converted for.
        quantizes: to INT8; otherwise from INT8.
        elements: how many; 0 where that can't be inferred.
    """

    tensor: str
    reader: str
    quantizes: bool
    elements: int


@dataclass(frozen=True)
class Passes:
    """All passes of a graph, beside what INT8 saves.

    Attributes:
        layers: matrix nodes in INT8.
        passes: in the order of the graph.
        saved: bytes that INT8 layers read and write less than in FP16.
    """

    layers: int
    passes: tuple[Pass, ...]
    saved: int

    @property
    def moved(self) -> int:
        """Bytes that the passes read and write."""
        return sum(_MOVED * each.elements for each in self.passes)

    @property
    def share(self) -> float:
        """Bytes that passes move, as a share of those that are saved."""
        return self.moved / self.saved if self.saved else 0.0

    def advice(self) -> str | None:
        """What to know before an engine is built; None where INT8 is worth it."""
        if self.share < WORTHLESS:
            return None
        worst = max(self.passes, key=lambda each: each.elements)
        return (
            f"INT8 is likely no faster than FP16: {self.layers} layers save {self.saved / 1e6:.0f} MB, and "
            f"{len(self.passes)} conversions between them and layers in floating point move {self.moved / 1e6:.0f} MB, "
            f"the largest for '{worst.reader}'; put longer stretches into INT8, or none (trt_builder tune)"
        )


def find_passes(model: onnx.ModelProto, sizes: Mapping[str, int] | None = None) -> Passes:
    """The passes of a quantized graph; none of one without Q/DQ nodes.

    Args:
        model: the graph.
        sizes: of its named axes, where they are known.
    """
    fixed = with_sizes(model, sizes or {})
    inside = set(quantized_nodes(fixed)[0])
    elements = _elements(fixed)
    graph = QdqGraph(fixed.graph)
    nodes = [node for node in fixed.graph.node if node_name(node) in inside and node.op_type in MATRIX_OPERATORS]
    made = {_result(graph, node) for node in nodes}
    saved = sum(elements.get(node.input[0], 0) + elements.get(node.output[0], 0) for node in nodes)
    found = [*_quantizing(graph, made, elements), *_dequantizing(graph, made, elements)]
    return Passes(len(nodes), tuple(found), _SAVED * saved)


def elements_of(model: onnx.ModelProto, sizes: Mapping[str, int]) -> dict[str, int]:
    """How many elements each tensor has, by its name; those of which nothing is known are missing.

    Args:
        model: the graph.
        sizes: of its named axes, where they are known.
    """
    return _elements(with_sizes(model, sizes))


def _quantizing(graph: QdqGraph, made: set[str], elements: Mapping[str, int]) -> Iterator[Pass]:
    """Tensors that INT8 layers read and that no INT8 layer writes as such."""
    seen = set[str]()
    for tensor in [*graph.inputs, *graph.producer]:
        for quantize in graph.consumers[tensor]:
            if quantize.op_type != "QuantizeLinear" or quantize.input[0] != tensor:
                continue
            for origin in _origins(graph, tensor):
                if origin not in seen and (origin not in made or _float_readers(graph, origin)):
                    seen.add(origin)
                    yield Pass(origin, _reader(graph, quantize), True, elements.get(origin, 0))


def _dequantizing(graph: QdqGraph, made: set[str], elements: Mapping[str, int]) -> Iterator[Pass]:
    """Tensors that INT8 layers write and layers in floating point read; outputs of the graph are written as such."""
    for tensor in graph.producer:
        if tensor in made and (readers := _float_readers(graph, tensor)):
            yield Pass(tensor, node_name(readers[0]), False, elements.get(tensor, 0))


def _result(graph: QdqGraph, node: Any) -> str:
    """What a matrix node's kernel writes: behind what it takes in."""
    tensor = str(node.output[0])
    while (
        len(readers := graph.consumers[tensor]) == 1 and readers[0].op_type in _TAKEN_IN and tensor not in graph.outputs
    ):
        tensor = str(readers[0].output[0])
    return tensor


def _origins(graph: QdqGraph, tensor: str) -> Iterator[str]:
    """The tensors that a quantized one is put together from."""
    node = graph.producer.get(tensor)
    if graph.constant(tensor) is not None:
        return
    if node is None or node.op_type not in _PASSED:
        yield tensor
        return
    for name in node.input if node.op_type == "Concat" else node.input[:1]:
        yield from _origins(graph, name)


def _float_readers(graph: QdqGraph, tensor: str) -> list[Any]:
    """Nodes that read a tensor in floating point, through those that only pass it on."""
    found = []
    for node in graph.consumers[tensor]:
        if node.op_type in _PASSED:
            found += _float_readers(graph, node.output[0])
        elif node.op_type != "QuantizeLinear":
            found.append(node)
    return found


def _reader(graph: QdqGraph, quantize: Any) -> str:
    """The matrix node behind a Q node."""
    node = quantize
    while node.op_type not in MATRIX_OPERATORS and (readers := graph.consumers[node.output[0]]):
        node = readers[0]
    return node_name(node)


def with_sizes(model: onnx.ModelProto, sizes: Mapping[str, int]) -> onnx.ModelProto:
    """A copy of a graph with the size of every tensor.

    Args:
        model: the graph.
        sizes: of its named axes; of the others the first is 1, and more are of a usual size.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    for value in fixed.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not has_size(dim):
                dim.dim_value = sizes.get(dim.dim_param, 1 if axis == 0 else _UNKNOWN)
    return onnx.shape_inference.infer_shapes(fixed)


def _elements(model: onnx.ModelProto) -> dict[str, int]:
    graph = model.graph
    return {
        value.name: prod(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
