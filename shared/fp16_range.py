"""Which nodes of a graph reach values that FP16 can't hold: by their weights, and by what was seen on samples."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from shared.json_reader import read_json
from shared.lazy import lazy_import
from shared.onnx_graph import node_name

if TYPE_CHECKING:
    import onnx

    from shared.spec import ComponentSpec
    from shared.workspace import Workspace
else:
    onnx = lazy_import("onnx")

# Largest finite FP16 number (IEEE 754 binary16).
FP16_MAX = 65504.0
# A few samples do not show the largest value that will ever occur; three bits are left for the rest.
FP16_HEADROOM = 8.0

KIND = "tensor-ranges"
_SUFFIX = "__largest"

_log = logging.getLogger(__name__)


def beyond_fp16(model: onnx.ModelProto, largest: Mapping[str, float]) -> dict[str, str]:
    """Nodes that can't run in FP16, with the reason: a weight or a value near the end of what it can hold.

    Args:
        model: the graph.
        largest: largest magnitude by tensor on recorded samples, where there are any.
    """
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    reached = {
        name: float(np.abs(value).max())
        for name, value in weights.items()
        if np.issubdtype(value.dtype, np.floating) and value.size
    }
    reasons = {}
    for node in model.graph.node:
        for name in (*node.input, *node.output):
            if reached.get(name, 0.0) > FP16_MAX and node.op_type != "BatchNormalization":
                reasons[node_name(node)] = f"weight '{name}' reaches {reached[name]:.4g}"
            elif largest.get(name, 0.0) > FP16_MAX / FP16_HEADROOM:
                reasons[node_name(node)] = f"'{name}' reaches {largest[name]:.4g} on recorded samples"
    return reasons


def largest_values(ws: Workspace, component: ComponentSpec) -> dict[str, float]:
    """Largest magnitude by tensor of a component's graph; empty where none was recorded of this very ONNX file.

    Raises:
        ManifestError: what was recorded is missing or changed.
    """
    relative = f"ranges/{component.name}.json"
    artifact = ws.manifest().artifacts.get(relative)
    if artifact is None or artifact.kind != KIND:
        return {}
    recorded = read_json(ws.artifact(relative))
    if recorded["onnx_sha256"] != ws.input_hash(component.onnx):
        _log.warning(
            "%s: only weights are checked against FP16's range: %s is of an earlier export (`runtime ranges`)",
            component.name,
            relative,
        )
        return {}
    largest: dict[str, float] = recorded["largest"]
    return largest


def with_largest_values(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a graph with a further output per float32 tensor, its largest magnitude: a scalar float32."""
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    graph = onnx.shape_inference.infer_shapes(model).graph
    weights = {tensor.name for tensor in graph.initializer}
    tensors = dict.fromkeys(
        value.name
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and value.name not in weights
    )
    for name in tensors:
        magnitudes, largest = f"{name}__magnitudes", name + _SUFFIX
        # Without axes, all are reduced, in every opset.
        extended.graph.node.append(onnx.helper.make_node("Abs", [name], [magnitudes]))
        extended.graph.node.append(onnx.helper.make_node("ReduceMax", [magnitudes], [largest], keepdims=0))
        extended.graph.output.append(onnx.helper.make_tensor_value_info(largest, onnx.TensorProto.FLOAT, []))
    return extended


def largest_of(answers: Mapping[str, npt.NDArray[Any]]) -> dict[str, float]:
    """Largest magnitude by tensor, of what a graph with such outputs (`with_largest_values`) gave; NaN is infinite."""
    return {
        name.removesuffix(_SUFFIX): float(np.nan_to_num(value, nan=np.inf))
        for name, value in answers.items()
        if name.endswith(_SUFFIX)
    }
