"""Precision baked into a graph: a copy of it whose nodes compute in FP16 or BF16, with casts where types meet.

For versions of TensorRT in which the types in the graph decide. Inputs and outputs keep their types, so that every
engine of a component is called alike. Nodes stay in FP32 when the caller keeps them there, when they have
no such form, when a weight does not fit FP16, and between Q and DQ nodes, where casts would stand in the way of INT8
kernels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from shared.fp16_range import FP16_MAX
from shared.lazy import lazy_import
from shared.onnx_graph import names_read, node_name, tensor_types

if TYPE_CHECKING:
    import onnx
else:
    onnx = lazy_import("onnx")

# These have no 16-bit form in ONNX or TensorRT, make FP32 from an attribute, or hold graphs of their own.
_FP32_ONLY = frozenset(
    {
        "NonMaxSuppression", "RoiAlign", "Range", "EyeLike", "RandomNormal", "RandomNormalLike", "RandomUniform",
        "RandomUniformLike", "Multinomial", "Bernoulli", "CumSum", "QuantizeLinear", "DequantizeLinear",
        "DynamicQuantizeLinear", "If", "Loop", "Scan", "Constant", "ConstantOfShape", "SequenceConstruct",
    }
)  # fmt: skip

# Inputs that ONNX wants in FP32 whatever the type of the node: scales and regions of Resize.
_FP32_INPUTS = {"Resize": (1, 2), "Upsample": (1,)}

# Pointwise operators that INT8 kernels take in: between two quantized nodes they must not be cast.
_FUSED_POINTWISE = frozenset(
    {"Relu", "LeakyRelu", "Clip", "Add", "Mul", "Sigmoid", "HardSwish", "HardSigmoid", "BatchNormalization", "Concat",
     "MaxPool", "Resize", "Reshape", "Transpose", "Identity"}
)  # fmt: skip


@dataclass
class CastReport:
    """What became of the nodes.

    Attributes:
        low: number of nodes that compute in the low precision now.
        kept: node name to the reason why it stays in FP32.
        casts: number of casts added.
    """

    low: int = 0
    kept: dict[str, str] = field(default_factory=dict)
    casts: int = 0


def lower(
    model: onnx.ModelProto,
    low: Literal["fp16", "bf16"],
    *,
    keep: Mapping[str, str] | None = None,
) -> tuple[onnx.ModelProto, CastReport]:
    """A copy of ``model`` that computes in ``low``.

    Args:
        model: the graph; not changed.
        low: the type.
        keep: node name to the reason why it stays in FP32.
    """
    lowered = onnx.ModelProto()
    lowered.CopyFrom(model)
    _constants_to_initializers(lowered.graph)
    _simplify_batch_normalization(lowered.graph)
    types = tensor_types(lowered)
    report = CastReport()
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in lowered.graph.initializer}
    too_large = _too_large(weights) if low == "fp16" else {}
    around_int8 = _around_int8(lowered.graph)
    rewriter = _Rewriter(lowered.graph, types, weights, low)
    for node in list(lowered.graph.node):
        reason = _reason_to_keep(node, keep or {}, too_large, around_int8)
        if reason is not None:
            rewriter.copy_in_fp32(node)
            if any(types.get(name) == onnx.TensorProto.FLOAT for name in (*node.input, *node.output)):
                report.kept[node_name(node)] = reason
        elif rewriter.touches_fp32(node):
            rewriter.lower(node)
            report.low += 1
        else:
            rewriter.copy_in_fp32(node)
    rewriter.finish()
    report.casts = rewriter.casts
    return lowered, report


def _reason_to_keep(
    node: onnx.NodeProto, keep: Mapping[str, str], too_large: Mapping[str, str], around_int8: Collection[str]
) -> str | None:
    name = node_name(node)
    if name in keep:
        return keep[name]
    if node.op_type in _FP32_ONLY or node.domain not in ("", "ai.onnx"):
        return f"{node.op_type} has no 16-bit form"
    if name in around_int8:
        return "part of an INT8 kernel"
    return next((too_large[tensor] for tensor in node.input if tensor in too_large), None)


def _too_large(weights: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, str]:
    return {
        name: f"weight '{name}' reaches {np.abs(value).max():.4g}"
        for name, value in weights.items()
        if value.dtype == np.float32 and value.size and np.abs(value).max() > FP16_MAX
    }


def _around_int8(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes that INT8 kernels take in: fed by DQ, and the pointwise ones from there up to the next Q."""
    by_output = {output: node for node in graph.node for output in node.output}
    inside: set[str] = set()
    for node in graph.node:
        sources = [by_output[name] for name in node.input if name in by_output]
        fed_by_dq = any(source.op_type == "DequantizeLinear" for source in sources)
        follows = node.op_type in _FUSED_POINTWISE and any(node_name(source) in inside for source in sources)
        if fed_by_dq or follows:
            inside.add(node_name(node))
    return inside


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Make Constant nodes initializers, which can be converted."""
    constants = [node for node in graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"]
    for node in constants:
        tensor = onnx.TensorProto()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        graph.initializer.append(tensor)
        graph.node.remove(node)


def _simplify_batch_normalization(graph: onnx.GraphProto) -> None:
    """Make every BatchNormalization one of mean 0 and variance 1, its scale and bias computed in FP64.

    In FP16 a small variance would vanish, and mean and bias would each be rounded before they are subtracted.
    """
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "BatchNormalization" or any(name not in weights for name in node.input[1:]):
            continue
        values = [onnx.numpy_helper.to_array(weights[name]) for name in node.input[1:]]
        scale, bias, mean, variance = (value.astype(np.float64) for value in values)
        epsilon = next((item for item in node.attribute if item.name == "epsilon"), None)
        factor = scale / np.sqrt(variance + (epsilon.f if epsilon is not None else 1e-5))
        new = (factor, bias - mean * factor, np.zeros_like(mean), np.ones_like(variance))
        for index, (value, old) in enumerate(zip(new, values, strict=True), start=1):
            name = f"{node_name(node)}.{index}"
            graph.initializer.append(onnx.numpy_helper.from_array(value.astype(old.dtype), name))
            node.input[index] = name
        if epsilon is None:
            epsilon = node.attribute.add(name="epsilon", type=onnx.AttributeProto.FLOAT)
        epsilon.f = 0.0


class _Rewriter:
    """Writes the nodes of a graph anew, in order, each in the type that it is to have."""

    def __init__(
        self,
        graph: onnx.GraphProto,
        types: Mapping[str, int],
        weights: Mapping[str, np.ndarray[Any, Any]],
        low: Literal["fp16", "bf16"],
    ) -> None:
        self._graph = graph
        self._types = types
        self._weights = weights
        self._low = onnx.TensorProto.FLOAT16 if low == "fp16" else onnx.TensorProto.BFLOAT16
        self._suffix = f"__{low}"
        self._nodes: list[onnx.NodeProto] = []
        self._made_low: set[str] = set()  # tensors whose producer computes in the low type; named with the suffix
        self._available: set[str] = set()  # casts that exist already, by the name of their output
        self._new_weights: dict[str, onnx.TensorProto] = {}
        self.casts = 0

    def touches_fp32(self, node: onnx.NodeProto) -> bool:
        """Whether an input or output of the node is FP32."""
        return any(self._types.get(name) == onnx.TensorProto.FLOAT for name in (*node.input, *node.output))

    def copy_in_fp32(self, node: onnx.NodeProto) -> None:
        """Add the node as it is; inputs whose producer went low are cast back."""
        # Graphs inside the node (If, Loop) may use any tensor by name, so those must be there in FP32 too.
        for name in names_read(node):
            if name in self._made_low:
                self._cast(self._low_name(name), name, onnx.TensorProto.FLOAT)
        self._nodes.append(node)

    def lower(self, node: onnx.NodeProto) -> None:
        """Add the node in the low type."""
        fixed = _FP32_INPUTS.get(node.op_type, ())
        new = onnx.NodeProto()
        new.CopyFrom(node)
        for index, name in enumerate(node.input):
            if self._types.get(name) != onnx.TensorProto.FLOAT:
                continue
            if index in fixed:
                if name in self._made_low:
                    self._cast(self._low_name(name), name, onnx.TensorProto.FLOAT)
                continue
            new.input[index] = self._low_input(name)
        for index, name in enumerate(node.output):
            if self._types.get(name) == onnx.TensorProto.FLOAT:
                self._made_low.add(name)
                new.output[index] = self._low_name(name)
        if node.op_type == "Cast":
            for attribute in new.attribute:
                if attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT:
                    attribute.i = self._low
        self._nodes.append(new)

    def finish(self) -> None:
        """Give the graph its new nodes and weights, and its outputs their old types."""
        for output in self._graph.output:
            if output.name in self._made_low:
                self._cast(self._low_name(output.name), output.name, onnx.TensorProto.FLOAT)
        used = {name for node in self._nodes for name in names_read(node)}
        used |= {output.name for output in self._graph.output}
        weights = [tensor for tensor in self._graph.initializer if tensor.name in used]
        del self._graph.node[:], self._graph.initializer[:], self._graph.value_info[:]
        self._graph.node.extend(self._nodes)
        self._graph.initializer.extend([*weights, *self._new_weights.values()])

    def _low_name(self, name: str) -> str:
        return name + self._suffix

    def _low_input(self, name: str) -> str:
        low_name = self._low_name(name)
        if name in self._made_low or low_name in self._new_weights:
            return low_name
        if name in self._weights:
            self._new_weights[low_name] = _converted(self._weights[name], low_name, self._low)
        else:
            self._cast(name, low_name, self._low)
        return low_name

    def _cast(self, source: str, target: str, to: int) -> None:
        if target in self._available:
            return
        self._available.add(target)
        self.casts += 1
        self._nodes.append(onnx.helper.make_node("Cast", [source], [target], name=f"cast_to_{target}", to=to))


def _converted(value: np.ndarray[Any, Any], name: str, to: int) -> onnx.TensorProto:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(to)
    return onnx.numpy_helper.from_array(value.astype(dtype), name)
