"""Precision policies: what each means, whatever the version of TensorRT, and what it asks of every matrix node.

| policy | matrix nodes (Conv, ConvTranspose, MatMul, Gemm) | everything else |
|---|---|---|
| ``auto`` | the types in the graph; FP32 may use TF32; Q/DQ nodes run in INT8 | likewise |
| ``fp32`` | FP32, TF32 off | FP32 |
| ``fp32_tf32`` | FP32, TF32 allowed | FP32 |
| ``fp16`` | FP16 | FP16 or FP32 |
| ``bf16`` | BF16 | BF16 or FP32 |
| ``int8``, ``explicit_int8`` | with Q/DQ: INT8; without: FP16 | FP16 or FP32 |
| ``strongly_typed`` | the types in the graph, exactly | likewise |

``keep_fp32`` patterns take nodes out of ``fp16``, ``bf16`` and ``int8``; with such nodes TF32 is off, since TF32's
mantissa is FP16's and nothing would be kept. Nodes whose weights, or whose values on recorded samples, do not fit FP16
stay in FP32 by themselves, as do transposed convolutions under ``bf16``, which TensorRT does not have.

8.6 and 10.x get there by builder flags and layer precisions, 11.x and TensorRT for RTX by a derived graph
(`cast_graph`): `flags_do` says which. Everything here is plain Python on an ONNX graph: no TensorRT.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from shared import onnx_graph
from shared.errors import ConfigError
from shared.fp16_range import beyond_fp16
from shared.lazy import lazy_import
from shared.qdq_lint import QdqGraph

if TYPE_CHECKING:
    import onnx

    from shared.spec import ComponentSpec
else:
    onnx = lazy_import("onnx")

_log = logging.getLogger("build")

Precision = Literal["fp32", "fp16", "bf16", "int8"]

_IMAGE_RANK = 4

# TensorRT's parser types no transposed convolution in BF16; between casts its compiler may run it in BF16 all the same,
# so either is as asked.
NO_BF16_FORM = "the ONNX parser takes no BF16 transposed convolution"


@dataclass(frozen=True)
class Policy:
    """What a policy means.

    Attributes:
        name: as in the config.
        low: type that unquantized matrix nodes run in, or None: the graph's.
        quantized: the graph must have Q/DQ nodes, and matrix nodes between them run in INT8.
        tf32: whether FP32 may be computed in TF32; None leaves TensorRT's default (it may).
        typed: the types in the graph are binding for every layer.
    """

    name: str
    low: Literal["fp16", "bf16"] | None
    quantized: bool
    tf32: bool | None
    typed: bool = False


POLICIES = {
    policy.name: policy
    for policy in (
        Policy("auto", low=None, quantized=False, tf32=None),
        Policy("fp32", low=None, quantized=False, tf32=False),
        Policy("fp32_tf32", low=None, quantized=False, tf32=True),
        Policy("fp16", low="fp16", quantized=False, tf32=None),
        Policy("bf16", low="bf16", quantized=False, tf32=None),
        Policy("int8", low="fp16", quantized=True, tf32=None),
        Policy("explicit_int8", low="fp16", quantized=True, tf32=None),
        Policy("strongly_typed", low=None, quantized=False, tf32=None, typed=True),
    )
}


@dataclass(frozen=True)
class Resolved:
    """A policy applied to one graph.

    Attributes:
        policy: the policy.
        tf32: whether FP32 may be computed in TF32; None leaves the default.
        keep: node name to the reason why it stays in FP32 under a policy that lowers precision.
        int8: the graph has Q/DQ nodes, which the builder must honor.
        expected: per matrix node what it must run in.
    """

    policy: Policy
    tf32: bool | None
    keep: dict[str, str]
    int8: bool
    expected: dict[str, Precision]

    @property
    def types(self) -> int:
        """How many types TensorRT times the kernels of, for a layer: a build takes longer with each."""
        if self.policy.typed:
            return 1
        return 1 + (self.tf32 is not False) + (self.policy.low is not None) + self.int8

    def fp16_inputs(self, model: onnx.ModelProto) -> frozenset[str]:
        """Images of a graph in FP16 and INT8 that it reads in FP16 alone, so that rounding them to it loses nothing.

        Rows of points stay as they are: they hold meters, which FP16 knows to some centimeters, and are small.
        """
        computed = set(self.expected.values())
        if self.keep or "fp16" not in computed or not computed <= {"fp16", "int8"}:
            return frozenset()
        graph = QdqGraph(model.graph)
        images = {one.name for one in onnx_graph.graph_inputs(model) if len(one.shape) == _IMAGE_RANK}
        return frozenset(name for name in graph.inputs if name in images and not _is_rounded_to_int8(graph, name))


def resolve(
    name: str,
    model: onnx.ModelProto,
    keep_fp32: Sequence[str],
    *,
    where: str,
    largest: Mapping[str, float] | None = None,
) -> Resolved:
    """Apply a policy to a graph.

    Args:
        name: name of the policy.
        model: the graph.
        keep_fp32: regular expressions on node names, matched from the start.
        where: the ONNX file, for errors.
        largest: largest magnitude per tensor on recorded samples, where there are any (`fp16_range`).

    Raises:
        ConfigError: INT8 without Q/DQ nodes, a pattern that names no node, or patterns under a policy that lowers
            nothing.
    """
    policy = POLICIES[name]
    int8 = onnx_graph.is_quantized(model)
    if policy.quantized and not int8:
        raise ConfigError(
            f"precision_policy {name} needs Q/DQ nodes, and this graph has none",
            where=where,
            hint="quantize the model first, or use fp16",
        )
    if keep_fp32 and policy.low is None:
        raise ConfigError(
            f"keep_fp32 has no meaning under precision_policy {name}, which lowers nothing",
            where=where,
            hint="remove keep_fp32, or use fp16, bf16 or int8",
        )
    keep: dict[str, str] = {}
    if policy.low == "fp16":
        keep |= beyond_fp16(model, largest or {})
    if policy.low == "bf16":
        keep |= {
            onnx_graph.node_name(node): NO_BF16_FORM for node in model.graph.node if node.op_type == "ConvTranspose"
        }
    asked = nodes_matching(model, keep_fp32, where=where)
    keep |= dict.fromkeys(asked, "keep_fp32")
    return Resolved(policy, False if asked else policy.tf32, keep, int8, _expected(policy, model, keep))


def _is_rounded_to_int8(graph: QdqGraph, tensor: str) -> bool:
    """Whether a tensor is quantized before a matrix node has computed with it."""
    left, seen = [tensor], {tensor}
    while left:
        for node in graph.consumers[left.pop()]:
            if node.op_type == "QuantizeLinear":
                return True
            if node.op_type not in onnx_graph.MATRIX_OPERATORS:
                left += set(node.output) - seen
                seen.update(node.output)
    return False


def kept_by_model(policy: str, model: onnx.ModelProto, component: ComponentSpec) -> list[str]:
    """The model's own ``keep_fp32`` patterns, under a policy that lowers precision.

    Those that match no node are left out, with a warning: the dynamo exporter names nodes otherwise.
    """
    if POLICIES[policy].low is None:
        return []
    names = [onnx_graph.node_name(node) for node in model.graph.node]
    found = [pattern for pattern in component.keep_fp32 if any(re.match(pattern, name) for name in names)]
    if missing := [pattern for pattern in component.keep_fp32 if pattern not in found]:
        _log.warning(
            "%s: no node has a name like %s, which should stay in FP32; name its nodes in components.%s.keep_fp32",
            component.name,
            " or ".join(missing),
            component.name,
        )
    return found


def nodes_matching(model: onnx.ModelProto, patterns: Sequence[str], *, where: str) -> list[str]:
    """Names of the nodes that a pattern matches, in the order of the graph.

    Raises:
        ConfigError: a pattern matches nothing.
    """
    names = [onnx_graph.node_name(node) for node in model.graph.node]
    for pattern in patterns:
        if not any(re.match(pattern, name) for name in names):
            raise ConfigError(
                f"keep_fp32 pattern '{pattern}' matches no node",
                where=where,
                hint=f"node names look like {', '.join(names[:3])}",
            )
    return [name for name in names if any(re.match(pattern, name) for pattern in patterns)]


def flags_do(resolved: Resolved, *, weakly_typed: bool) -> bool:
    """Whether builder flags and layer precisions reach the policy, so that the graph can stay as it is.

    Args:
        resolved: the policy on this graph.
        weakly_typed: whether this TensorRT has such flags.
    """
    return weakly_typed or resolved.policy.low is None


def _expected(policy: Policy, model: onnx.ModelProto, keep: Mapping[str, str]) -> dict[str, Precision]:
    types = onnx_graph.tensor_types(model)
    of_type: dict[int, Precision] = {
        onnx.TensorProto.FLOAT: "fp32",
        onnx.TensorProto.FLOAT16: "fp16",
        onnx.TensorProto.BFLOAT16: "bf16",
    }
    made_by = onnx_graph.producers(model)
    expected: dict[str, Precision] = {}
    for node in onnx_graph.matrix_nodes(model):
        name = onnx_graph.node_name(node)
        if keep.get(name) == NO_BF16_FORM:
            continue
        in_graph = of_type.get(types.get(node.output[0], onnx.TensorProto.FLOAT), "fp32")
        sources = [made_by(tensor) for tensor in node.input[:2]]
        dequantized = [source is not None and source.op_type == "DequantizeLinear" for source in sources]
        if all(dequantized):
            expected[name] = "int8"
        elif any(dequantized) or name in keep or policy.low is None or in_graph != "fp32":
            # Half quantized nodes run as the graph says; a graph that holds FP16 nodes is not raised to FP32 again.
            expected[name] = in_graph
        else:
            expected[name] = policy.low
    return expected
