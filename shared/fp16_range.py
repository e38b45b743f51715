"""Which nodes of a graph reach values that FP16 can't hold: by their weights, and by what `runtime ranges` saw."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

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
