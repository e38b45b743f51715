"""Misplaced Q/DQ nodes of an ONNX graph: what TensorRT would not run in INT8, refuse, or reformat around.

TensorRT makes an INT8 kernel of a matrix node (Conv, ConvTranspose, Gemm, MatMul) when a DequantizeLinear is at
both of its inputs, symmetric int8, the weights' with one scale per output channel. Every other pair costs time or
accuracy for nothing. Pure ONNX: works on any file, whoever made it.

| rule | what it asks |
|---|---|
| inputs | a matrix node has both inputs quantized, or neither |
| weights | Conv: one scale per output channel; ConvTranspose: that or one scale; activations: one scale |
| int8 | zero points are int8 and 0, scales constant, positive and finite |
| pairs | a Q feeds DQs of its own scale and nothing else; a DQ does not feed a Q |
| fusion | a DQ reaches a matrix node; or an Add that is part of one, quantized as a whole, or beside one |
| scales | one scale on all quantized inputs of an Add or Concat, and on all copies of a tensor |
| excluded | nodes that are to stay in floating point have no DQ at an input |
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.errors import ExportError
from shared.lazy import lazy_import
from shared.onnx_graph import MATRIX_OPERATORS, node_name
from shared.patterns import compiled

onnx = lazy_import("onnx")

# TensorRT moves a DQ behind these and a Q before them, since they compute the same on int8 (its documentation:
# "layers that commute with quantization").
_COMMUTES = frozenset(
    {"Concat", "Flatten", "Gather", "GlobalMaxPool", "Identity", "MaxPool", "Relu", "Reshape", "Resize", "Slice",
     "Split", "Squeeze", "Transpose", "Unsqueeze"}
)  # fmt: skip
# Taken into the kernel of the matrix node before them.
_EPILOGUE = frozenset({"Add", "BatchNormalization", "Clip", "LeakyRelu", "Relu"})
# Quantized inputs of these need one scale: their int8 values are added, or lie in one tensor.
_JOINS = frozenset({"Add", "Concat"})
# What a Constant may hold in place of a tensor.
_NUMBERS = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}

Scale = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Finding:
    """A Q/DQ node that is missing, too many, or wrong.

    Attributes:
        node: the ONNX node's name.
        operator: its type.
        rule: which rule of the module's table.
        problem: what is wrong, and what follows from it.
    """

    node: str
    operator: str
    rule: str
    problem: str

    def __str__(self) -> str:
        return f"{self.node} ({self.operator}): {self.problem}"


def lint(model: Any, excluded: Sequence[str] = ()) -> list[Finding]:
    """What is wrong with a graph's Q/DQ nodes, in the order of its nodes; nothing in a graph without any.

    Args:
        model: onnx.ModelProto.
        excluded: regular expressions (``re.search``) on a matrix node's name and on its layer's (that of its weight in
            PyTorch, ``backbone.blocks.0.0``): layers that are to stay in floating point.

    Raises:
        UsageError: one of them is none.
    """
    graph = QdqGraph(model.graph)
    patterns = [compiled(pattern, "--exclude") for pattern in excluded]
    findings: list[Finding] = []
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            findings += _quantize(graph, node)
        elif node.op_type == "DequantizeLinear":
            findings += _dequantize(graph, node)
        elif node.op_type in MATRIX_OPERATORS:
            findings += _matrix(graph, node, patterns)
        if node.op_type in _JOINS:
            findings += _join(graph, node)
    for tensor in (*(value.name for value in model.graph.input), *graph.producer):
        findings += _copies(graph, tensor)
    return findings


def check(path: Path, excluded: Sequence[str] = ()) -> None:
    """Raise for the findings in an ONNX file.

    Raises:
        ExportError: there are any; the first is named, the others are counted.
    """
    findings = lint(onnx.load(str(path)), excluded)
    if findings:
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        raise ExportError(
            f"Q/DQ nodes are misplaced: {findings[0]}{more}",
            where=path.name,
            hint="all: exporter quantize lint FILE.onnx",
        )


def quantized_nodes(model: Any) -> tuple[list[str], list[str]]:
    """Names of the matrix nodes with a DQ at their first input, and of the others."""
    graph = QdqGraph(model.graph)
    nodes = [node for node in model.graph.node if node.op_type in MATRIX_OPERATORS]
    inside = [node for node in nodes if graph.dequantized(node.input[0]) is not None]
    return [node_name(node) for node in inside], [node_name(node) for node in nodes if node not in inside]


def float_sums(model: Any) -> list[str]:
    """Names of the INT8 nodes that take an Add in which adds a floating-point tensor, or whose sum is read as one.

    TensorRT 8.6.0 (H200, without cuBLAS and cuDNN) has no kernel for these: of 14 builds of a ResNet, quantized in
    various parts, it refused the 12 that have one, each at its first.
    """
    graph = QdqGraph(model.graph)
    found = []
    for node in model.graph.node:
        if node.op_type != "Add":
            continue
        kernels = [name for name in node.input if graph.consumers[name] == [node] and _from_int8_kernel(graph, name)]
        if not kernels:
            continue
        total = node.output[0]
        while [reader.op_type for reader in graph.consumers[total]] in (["Relu"], ["Clip"]):
            total = graph.consumers[total][0].output[0]
        others = [name for name in node.input if name != kernels[0]]
        int8 = all(graph.dequantized(name) is not None for name in others)
        if not (int8 and _read_in_int8_alone(graph, total)):
            found.append(node_name(graph.producer[kernels[0]]))
    return found


def sum_advice(node: str) -> str:
    """What to do about a node of `float_sums`."""
    return (
        f"an INT8 kernel adds int8 to int8, and its sum is read as int8: let all that meets behind '{node}' be "
        f"quantized, or nothing of it (quantization.sensitive_layers)"
    )


def _read_in_int8_alone(graph: QdqGraph, tensor: str) -> bool:
    return tensor not in graph.outputs and all(
        reader.op_type == "QuantizeLinear"
        or (reader.op_type in _COMMUTES and all(_read_in_int8_alone(graph, name) for name in reader.output))
        for reader in graph.consumers[tensor]
    )


class QdqGraph:
    """A graph with its edges both ways and its constants."""

    def __init__(self, graph: Any) -> None:
        self.producer = {output: node for node in graph.node for output in node.output}
        self.consumers: defaultdict[str, list[Any]] = defaultdict(list)
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                self.consumers[name].append(node)
        self.outputs = {value.name for value in graph.output}
        self.inputs = [value.name for value in graph.input]
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}

    def constant(self, name: str) -> npt.NDArray[Any] | None:
        """The value of a tensor that the file holds, or None."""
        name = self._origin(name, frozenset({"Identity"}))
        tensor = self._initializers.get(name)
        node = self.producer.get(name)
        if tensor is None and node is not None and node.op_type == "Constant":
            attribute = node.attribute[0]
            if attribute.name in _NUMBERS:
                return np.asarray(onnx.helper.get_attribute_value(attribute), _NUMBERS[attribute.name])
            tensor = attribute.t if attribute.name == "value" else None
        return None if tensor is None else np.asarray(onnx.numpy_helper.to_array(tensor))

    def _origin(self, name: str, through: frozenset[str]) -> str:
        while (node := self.producer.get(name)) is not None and node.op_type in through:
            name = node.input[0]
        return name

    def dequantized(self, name: str) -> Any | None:
        """The DQ node that a tensor comes from, or None. Weights may be transposed on the way."""
        node = self.producer.get(self._origin(name, frozenset({"Identity", "Reshape", "Squeeze", "Transpose"})))
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    def weight(self, dequantize: Any) -> str | None:
        """The name of the constant that a DQ node reads, quantized in the graph or before; None for activations."""
        name = dequantize.input[0]
        node = self.producer.get(name)
        if node is not None and node.op_type == "QuantizeLinear":
            name = node.input[0]
        return name if self.constant(name) is not None else None

    def scale(self, node: Any) -> Scale | None:
        """The scale of a Q or DQ node."""
        value = self.constant(node.input[1])
        return None if value is None else np.asarray(value, np.float32)


def _finding(node: Any, rule: str, problem: str) -> Finding:
    return Finding(node_name(node), node.op_type, rule, problem)


# -- Q and DQ nodes themselves ----------------------------------------------------------------------------------------


def _values(graph: QdqGraph, node: Any) -> Iterator[Finding]:
    """Scale and zero point of a Q or DQ node."""
    scale = graph.scale(node)
    if scale is None:
        yield _finding(node, "int8", "its scale is computed in the graph; TensorRT needs a constant")
    elif not (np.isfinite(scale).all() and (scale > 0).all()):
        yield _finding(node, "int8", "has a scale that is not positive and finite")
    if len(node.input) < 3 or not node.input[2]:
        if node.op_type == "QuantizeLinear":  # a DQ's type is that of what it reads
            yield _finding(node, "int8", "has no zero point, which means uint8; TensorRT needs int8")
        return
    zero = graph.constant(node.input[2])
    if zero is None or zero.dtype != np.int8:
        kind = "not a constant" if zero is None else zero.dtype.name
        yield _finding(node, "int8", f"its zero point is {kind}; TensorRT needs int8")
    elif zero.any():
        yield _finding(node, "int8", "its zero point is not 0; TensorRT needs symmetric quantization")


def _quantize(graph: QdqGraph, node: Any) -> Iterator[Finding]:
    yield from _values(graph, node)
    consumers = graph.consumers[node.output[0]]
    others = [other for other in consumers if other.op_type != "DequantizeLinear"]
    if not consumers or others or node.output[0] in graph.outputs:
        to = f"'{node_name(others[0])}'" if others else "no DequantizeLinear"
        yield _finding(node, "pairs", f"feeds {to}; it should feed DequantizeLinear nodes alone")
    before = graph.producer.get(node.input[0])
    if before is not None and before.op_type == "DequantizeLinear":
        yield _finding(node, "pairs", f"quantizes again what '{node_name(before)}' dequantized; one pair is enough")


def _dequantize(graph: QdqGraph, node: Any) -> Iterator[Finding]:
    yield from _values(graph, node)
    before = graph.producer.get(node.input[0])
    if before is not None and before.op_type == "QuantizeLinear":
        scales = graph.scale(before), graph.scale(node)
        if not _equal(*scales) or (scales[1] is not None and scales[1].size > 1 and _axis(before) != _axis(node)):
            yield _finding(
                node, "pairs", f"has another scale or axis than '{node_name(before)}', whose values it reads"
            )
    elif graph.constant(node.input[0]) is None:
        yield _finding(node, "pairs", "reads neither a QuantizeLinear node nor a constant")
    if not is_used(graph, node):
        yield _finding(
            node, "fusion", "feeds nothing that TensorRT computes in INT8; the pair costs a rounding and saves nothing"
        )


def is_used(graph: QdqGraph, node: Any) -> bool:
    """Whether what a DQ node makes reaches an INT8 kernel, through nodes that int8 values pass unchanged."""
    for consumer in graph.consumers[node.output[0]]:
        if consumer.op_type in MATRIX_OPERATORS and node.output[0] in consumer.input[:2]:
            return True
        if consumer.op_type == "Add" and (_add_is_int8(graph, consumer) or _shares_its_tensor(graph, node)):
            return True
        # A second Q is reported as such.
        if consumer.op_type == "QuantizeLinear" or (consumer.op_type in _COMMUTES and is_used(graph, consumer)):
            return True
    return False


def _shares_its_tensor(graph: QdqGraph, dequantize: Any) -> bool:
    """Whether a matrix node reads the same tensor as int8, and so the kernel that makes it may write int8 alone."""
    quantize = graph.producer.get(dequantize.input[0])
    return quantize is not None and any(
        consumer.op_type in MATRIX_OPERATORS
        for other in graph.consumers[quantize.input[0]]
        if other.op_type == "QuantizeLinear"
        for pair in graph.consumers[other.output[0]]
        for consumer in graph.consumers[pair.output[0]]
    )


def _add_is_int8(graph: QdqGraph, add: Any) -> bool:
    """Whether every input of an Add is dequantized, or computed by the INT8 kernel that takes the Add in."""
    return all(graph.dequantized(name) is not None or _from_int8_kernel(graph, name) for name in add.input)


def _from_int8_kernel(graph: QdqGraph, name: str) -> bool:
    node = graph.producer.get(name)
    while node is not None and node.op_type in _EPILOGUE:
        node = graph.producer.get(node.input[0])
    return node is not None and node.op_type in MATRIX_OPERATORS and graph.dequantized(node.input[0]) is not None


# -- what they stand around -------------------------------------------------------------------------------------------


def _matrix(graph: QdqGraph, node: Any, excluded: Sequence[re.Pattern[str]]) -> Iterator[Finding]:
    dequantized = [graph.dequantized(name) for name in node.input[:2]]
    if not any(dequantized):
        return
    names = (node_name(node), _layer(graph, node))
    hit = next((pattern for pattern in excluded if any(pattern.search(name) for name in names)), None)
    if hit is not None:
        yield _finding(node, "excluded", f"is quantized although '{hit.pattern}' excludes it")
    for index, source in enumerate(dequantized):
        what = ("the first input", "the second input")[index]
        if source is None:
            yield _finding(
                node, "inputs", f"{what} is not quantized and the other is; it runs in floating point, after a pair"
            )
            continue
        scale = graph.scale(source)
        if scale is None or graph.weight(source) is None:
            if scale is not None and scale.size > 1:
                yield _finding(node, "weights", f"{what} is an activation with {scale.size} scales; TensorRT takes one")
            continue
        yield from _weight_scale(graph, node, source, scale)


def _weight_scale(graph: QdqGraph, node: Any, source: Any, scale: Scale) -> Iterator[Finding]:
    """The scales of a quantized weight: as many as there are output channels, along their axis."""
    weight = graph.weight(source)
    value = graph.constant(weight) if weight is not None else None
    if value is None:
        return
    axis = _channel_axis(graph, node, source, value.ndim)
    if scale.size == 1:
        # A transposed convolution with one scale is what TensorRT takes most easily.
        if node.op_type != "ConvTranspose" and value.shape[axis] > 1:
            yield _finding(node, "weights", f"its weight has one scale for {value.shape[axis]} output channels")
    elif _axis(source) % value.ndim != axis or scale.shape != (value.shape[axis],):
        yield _finding(
            node,
            "weights",
            f"its weight has {scale.size} scales along axis {_axis(source)}; "
            f"its {value.shape[axis]} output channels are axis {axis}",
        )


def _channel_axis(graph: QdqGraph, node: Any, source: Any, rank: int) -> int:
    """The axis of a weight, as it is stored, that its output channels are on."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    axis = rank - 1
    if node.op_type == "Gemm" and "transB" in attributes and attributes["transB"].i:
        axis = rank - 2
    transposed = graph.producer.get(node.input[1])
    if transposed is not None and transposed.op_type == "Transpose" and transposed.input[0] == source.output[0]:
        order = next((list(item.ints) for item in transposed.attribute if item.name == "perm"), None)
        axis = (order or list(range(rank))[::-1])[axis]
    return axis


def _join(graph: QdqGraph, node: Any) -> Iterator[Finding]:
    """Add and Concat: what is quantized of their inputs has one scale."""
    sources = [graph.dequantized(name) for name in node.input]
    inside = [source for source in sources if source is not None]
    first, *rest = inside or [None]
    for other in rest:
        if not _equal(graph.scale(first), graph.scale(other)):
            yield _finding(
                node,
                "scales",
                f"'{node_name(first)}' and '{node_name(other)}' have different scales, so one is converted",
            )


def _copies(graph: QdqGraph, tensor: str) -> Iterator[Finding]:
    """A tensor that is quantized several times has one scale: else it is kept and read once for each."""
    readers = [node for node in graph.consumers[tensor] if node.op_type == "QuantizeLinear" and node.input[0] == tensor]
    first, *rest = readers or [None]
    for other in rest:
        if not _equal(graph.scale(first), graph.scale(other)):
            yield _finding(
                other, "scales", f"'{tensor}' has another scale here than at '{node_name(first)}'; it is kept twice"
            )


def _layer(graph: QdqGraph, node: Any) -> str:
    """The layer's name in PyTorch: that of its weight without the last part."""
    source = graph.dequantized(node.input[1])
    weight = graph.weight(source) if source is not None else node.input[1]
    return (weight or "").rpartition(".")[0]


def _axis(node: Any) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "axis"), 1)


def _equal(one: Scale | None, other: Scale | None) -> bool:
    return one is not None and other is not None and one.shape == other.shape and bool((one == other).all())
