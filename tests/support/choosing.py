"""A workspace of a model whose layers were quantized, as the exporter leaves it, for choices of precisions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from shared.arrays import write_arrays
from shared.workspace import Workspace
from tests.support.trt_workspaces import ENCODER, HEAD, encoder, head, make_workspace, quantize
from trt_builder.choices.source import LAYERS, WEIGHTS


def quantized_workspace(root: Path, config: dict[str, Any] | None = None) -> Workspace:
    """Encoder in float, and the head with INT8 in all its convolutions; weights on int8's steps in the file."""
    rounded = quantize(head())
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in rounded.graph.initializer}
    exact, layers = {}, {}
    for node in rounded.graph.node:
        if node.op_type == "Conv":
            weight = node.input[1].removesuffix(".dq")
            name = f"pts{weight.removesuffix('.weight').replace('/', '.')}"
            layers[name] = {"node": node.name, "weight": weight}
            exact[name] = values[weight]
            _round(rounded, weight, values[f"{weight}.scale"])
    ws = make_workspace(root, {ENCODER: encoder(), HEAD: rounded}, config)
    with ws.stage("kept", tool="exporter") as stage:
        stage.json_artifact(LAYERS, "quantized-layers", {ENCODER: {}, HEAD: layers})
        with stage.artifact(WEIGHTS, kind="quantized-layers") as path:
            write_arrays(path, exact)
    return ws


def _round(model: onnx.ModelProto, weight: str, scale: Any) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == weight)
    steps = np.reshape(scale, (-1, 1, 1, 1))
    value = np.clip(np.round(numpy_helper.to_array(tensor) / steps), -128, 127) * steps
    tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), weight))
