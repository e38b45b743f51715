"""A workspace of a model whose layers were quantized, as the exporter leaves it, for choices of precisions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from shared.arrays import write_arrays
from shared.workspace import Workspace
from tests.support import tiny_centerpoint as tiny
from tests.support.trt_workspaces import (
    ENCODER,
    HEAD,
    SMALL,
    Network,
    encoder,
    head,
    make_workspace,
    quantize,
)
from tests.support.workspaces import make_labels
from trt_builder.choices.source import IN_FLOAT, LAYERS, WEIGHTS

NETWORK = Network(8, ((16, 0, 1), (32, 0, 2)), ((16, 0.5), (16, 1)), 16)


def quantized_workspace(
    root: Path, config: dict[str, Any] | None = None, network: Network = SMALL, size: int | None = 16
) -> Workspace:
    """Encoder in float, and the head with INT8 in all its convolutions; weights on int8's steps in the file.

    Args:
        root: where.
        config: what differs from the default deploy config.
        network: sizes of the head.
        size: height and width of its input; None: dynamic.
    """
    rounded = quantize(head(size, network))
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in rounded.graph.initializer}
    exact, layers = {}, {}
    for node in rounded.graph.node:
        if node.op_type == "Conv":
            weight = node.input[1].removesuffix(".dq")
            name = f"pts{weight.removesuffix('.weight').replace('/', '.')}"
            layers[name] = {"node": node.name, "weight": weight}
            exact[name] = values[weight]
            _round(rounded, weight, values[f"{weight}.scale"])
    ws = make_workspace(root, {ENCODER: encoder(network.channels_in), HEAD: rounded}, config)
    with ws.stage("kept", tool="exporter") as stage:
        stage.json_artifact(LAYERS, "quantized-layers", {ENCODER: {}, HEAD: layers})
        stage.json_artifact(IN_FLOAT, "quantized-layers", ["pts.encoder.0.linear"])
        with stage.artifact(WEIGHTS, kind="quantized-layers") as path:
            write_arrays(path, exact)
    return ws


def _round(model: onnx.ModelProto, weight: str, scale: Any) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == weight)
    steps = np.reshape(scale, (-1, 1, 1, 1))
    value = np.clip(np.round(numpy_helper.to_array(tensor) / steps), -128, 127) * steps
    tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), weight))


def runnable_workspace(folder: Path, frames: int) -> Workspace:
    """A quantized model that runs on ``frames`` labeled frames of points, ``folder/data``; its weights are random."""
    data = folder / "data"
    make_labels(data, frames)
    random = np.random.default_rng(0)
    for index in range(frames):
        random.uniform((-16, -16, -2, 0, 0), (16, 16, 3, 255, 0), (600, 5)).astype("<f4").tofile(data / f"{index}.bin")
    config = {
        "data": {"format": "info", "root": str(data), "info_file": "infos.json"},
        "export": {"mode": "onnx"},
        "verification": {"num_verify_samples": 2},
        "evaluation": {"enabled": True, "num_samples": -1},
    }
    workspace = quantized_workspace(folder / "work", config, NETWORK, None)
    parameters = tiny.parameters()
    parameters["points"]["use_dim"] = [0, 1, 2, 3, 4]
    parameters["decoration"]["raw_features"] = 5
    spec = workspace.spec().model_copy(update={"classes": tiny.CLASSES, "parameters": parameters})
    with workspace.stage("parameters", tool="exporter") as stage:
        stage.spec(spec)
    return workspace
