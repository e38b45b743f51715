"""A pillar encoder read from its graph: what `encode.cu` computes in one kernel, and the same in NumPy.

The graphs are those of mmdetection3d's ``PillarFeatureNet`` with its batch norms folded: MatMul, Add, Relu and
ReduceMax over the points of a pillar, once or twice; the second time each point brings its own activations and their
maxima.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from shared import onnx_graph
from shared.arrays import Float32, Int64
from shared.lazy import lazy_import

if TYPE_CHECKING:
    import onnx
else:
    onnx = lazy_import("onnx")


@dataclass(frozen=True)
class PillarLayer:
    """One linear layer: (K, C) float32 weights and (C,) float32 biases."""

    weight: Float32
    bias: Float32


@dataclass(frozen=True)
class PillarEncoder:
    """A pillar encoder of one or two layers.

    Sums are in FP32: from the bias on, first over the pillar's maxima, then over the point's own values, in their
    order. So the kernel and `encode` agree to the bit; an engine has an order of its own.

    Attributes:
        layers: the first takes a decorated point, the second the activations of the first, then their maxima.
        half: features, weights and activations are rounded to FP16, as they are in an engine that computes in it.
    """

    layers: tuple[PillarLayer, ...]
    half: bool

    @property
    def hidden(self) -> int:
        """Channels between the layers; 0 where there is one layer."""
        return self.layers[0].bias.size if len(self.layers) > 1 else 0

    def packed(self) -> Float32:
        """Weights and biases of the layers, one after the other, as the kernel takes them."""
        parts = [part for layer in self.layers for part in (self.rounded(layer.weight), layer.bias)]
        return np.concatenate([part.ravel() for part in parts])

    def rounded(self, values: Float32) -> Float32:
        """The values as products take them."""
        if not self.half:
            return values
        with np.errstate(over="ignore"):
            return values.astype(np.float16).astype(np.float32)

    def encode(self, features: Float32) -> Float32:
        """The pillars' features.

        Args:
            features: (V, M, F) float32 decorated points; unused slots are zero, and count as points.

        Returns:
            (V, 1, C) float32.
        """
        used: npt.NDArray[np.bool_] = np.any(features, axis=2)
        pillars = np.nonzero(used)[0]
        padded = np.count_nonzero(used, axis=1) < features.shape[1]
        first = self.layers[0]
        own = _activations(first.bias, self.rounded(features[used]), self.rounded(first.weight))
        empty = np.broadcast_to(np.maximum(first.bias, 0), (len(features), first.bias.size))
        if self.hidden:
            own, empty = self.rounded(own), self.rounded(empty)
            second = self.layers[1]
            weight = self.rounded(second.weight)
            bases = _sums(second.bias, _maxima(own, empty, pillars, padded), weight[self.hidden :])
            own = _activations(bases[pillars], own, weight[: self.hidden])
            empty = _activations(bases, empty, weight[: self.hidden])
        return self.rounded(_maxima(own, empty, pillars, padded))[:, None]


def _sums(bases: Float32, values: Float32, weight: Float32) -> Float32:
    """(N, C) ``bases`` (N, C) or (C,) and the products of values (N, K) with weights (K, C), added one by one."""
    sums: Float32 = np.array(np.broadcast_to(bases, (len(values), weight.shape[1])))
    for column, row in zip(values.T, weight, strict=True):
        sums += column[:, None] * row
    return sums


def _activations(bases: Float32, values: Float32, weight: Float32) -> Float32:
    return np.maximum(_sums(bases, values, weight), np.float32(0))


def _maxima(own: Float32, empty: Float32, pillars: Int64, padded: npt.NDArray[np.bool_]) -> Float32:
    """(V, C) over the points (P, C) of each pillar, and over its empty slots (V, C) where it has any."""
    maxima: Float32 = np.where(padded[:, None], empty, np.float32(0))
    if len(own):
        filled, starts = np.unique(pillars, return_index=True)
        # No activation is below zero.
        maxima[filled] = np.maximum(maxima[filled], np.maximum.reduceat(own, starts))
    return maxima


def read_encoder(path: Path, *, half: bool) -> PillarEncoder | None:
    """The encoder of an ONNX file; None where the graph is of another form.

    Args:
        path: the file.
        half: see `PillarEncoder`.

    Raises:
        InputError: not a whole ONNX file.
    """
    layers = _layers(onnx_graph.load(path))
    return None if layers is None else PillarEncoder(layers, half)


class _OtherForm(Exception):
    """The graph is not one that `PillarEncoder` computes."""


def _layers(model: onnx.ModelProto) -> tuple[PillarLayer, ...] | None:
    graph = model.graph
    if len(graph.input) != 1 or len(graph.output) != 1:
        return None
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = iter(graph.node)
    try:
        first, relu, maxima = _layer(nodes, weights, graph.input[0].name)
        if maxima == graph.output[0].name:
            return _only((first,), nodes)
        second, _, maxima = _layer(nodes, weights, _beside(nodes, relu, maxima))
        if maxima != graph.output[0].name or second.weight.shape[0] != 2 * first.bias.size:
            return None
        return _only((first, second), nodes)
    except _OtherForm:
        return None


def _only(layers: tuple[PillarLayer, ...], nodes: Iterator[onnx.NodeProto]) -> tuple[PillarLayer, ...] | None:
    return layers if next(nodes, None) is None else None


def _layer(
    nodes: Iterator[onnx.NodeProto], weights: dict[str, npt.NDArray[np.generic]], source: str
) -> tuple[PillarLayer, str, str]:
    """A layer on ``source``, its activations and their maxima."""
    product, total, relu = (_next(nodes, operator) for operator in ("MatMul", "Add", "Relu"))
    largest = _next(nodes, "ReduceMax")
    weight = weights.get(product.input[1])
    biases = [name for name in total.input if name != product.output[0]]
    bias = weights.get(biases[0]) if len(biases) == 1 else None
    follows = product.input[0] == source and relu.input[0] == total.output[0] and largest.input[0] == relu.output[0]
    if weight is None or bias is None or not follows:
        raise _OtherForm
    fits = weight.ndim == 2 and bias.shape == weight.shape[1:] and {weight.dtype, bias.dtype} == {np.dtype(np.float32)}
    if not fits or not _over_points(largest, weights):
        raise _OtherForm
    layer = PillarLayer(np.asarray(weight, np.float32), np.asarray(bias, np.float32))
    return layer, relu.output[0], largest.output[0]


def _beside(nodes: Iterator[onnx.NodeProto], activations: str, maxima: str) -> str:
    """The activations with the pillar's maxima beside them, along the channels."""
    _next(nodes, "Shape")
    repeated, joined = _next(nodes, "Expand"), _next(nodes, "Concat")
    axes = [attribute.i for attribute in joined.attribute if attribute.name == "axis"]
    side_by_side = list(joined.input) == [activations, repeated.output[0]] and axes in ([2], [-1])
    if repeated.input[0] != maxima or not side_by_side:
        raise _OtherForm
    return str(joined.output[0])


def _over_points(node: onnx.NodeProto, weights: dict[str, npt.NDArray[np.generic]]) -> bool:
    """Whether a ReduceMax goes over the second of three axes and keeps it."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    keeps = "keepdims" not in attributes or attributes["keepdims"].i == 1
    if "axes" in attributes:
        axes = list(attributes["axes"].ints)
    else:
        # From opset 18 on they are an input.
        axes = weights[node.input[1]].tolist() if len(node.input) > 1 and node.input[1] in weights else []
    return keeps and axes in ([1], [-2])


def _next(nodes: Iterator[onnx.NodeProto], operator: str) -> onnx.NodeProto:
    node = next(nodes, None)
    if node is None or node.op_type != operator:
        raise _OtherForm
    return node
