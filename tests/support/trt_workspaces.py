"""Small networks shaped like CenterPoint's two components, and workspaces that hold them, as the exporter leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from shared.config import resolved
from shared.config.schema import DeployConfig
from shared.spec import ComponentSpec, ModelSpec, TensorSpec
from shared.workspace import Workspace

ENCODER = "pts_voxel_encoder"
HEAD = "pts_backbone_neck_head"
HEADS = {"heatmap": 3, "reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2}
FEATURES, CHANNELS, POINTS = 11, 16, 8

PROFILE = {"input_features": {"min_shape": [1, POINTS, FEATURES], "opt_shape": [50, POINTS, FEATURES],
                              "max_shape": [200, POINTS, FEATURES]}}  # fmt: skip


def encoder() -> onnx.ModelProto:
    """(num_voxels, num_max_points, 11) -> (num_voxels, 1, 16): linear, batch normalisation, ReLU, maximum over points."""
    random = np.random.default_rng(0)
    weights = {
        "weight": random.normal(0, 0.3, (FEATURES, CHANNELS)),
        "scale": random.uniform(0.5, 1.5, CHANNELS),
        "bias": random.normal(0, 0.1, CHANNELS),
        "mean": random.normal(0, 0.1, CHANNELS),
        "variance": random.uniform(1e-6, 1.0, CHANNELS),
    }
    nodes = [
        helper.make_node("MatMul", ["input_features", "weight"], ["linear"], name="/pfn/linear/MatMul"),
        helper.make_node("Transpose", ["linear"], ["channels"], name="/pfn/Transpose", perm=[0, 2, 1]),
        helper.make_node(
            "BatchNormalization", ["channels", "scale", "bias", "mean", "variance"], ["normed"],
            name="/pfn/norm/BatchNormalization", epsilon=1e-3,
        ),
        helper.make_node("Relu", ["normed"], ["relu"], name="/pfn/Relu"),
        helper.make_node("Transpose", ["relu"], ["points"], name="/pfn/Transpose_1", perm=[0, 2, 1]),
        helper.make_node("ReduceMax", ["points"], ["pillar_features"], name="/pfn/ReduceMax", axes=[1], keepdims=1),
    ]  # fmt: skip
    return _model(
        nodes,
        {"input_features": ["num_voxels", "num_max_points", FEATURES]},
        {"pillar_features": ["num_voxels", 1, CHANNELS]},
        weights,
    )


def head(size: int | None = 16) -> onnx.ModelProto:
    """(batch_size, 16, height, width) -> the six heads: convolutions, a transposed one, a concatenation.

    Args:
        size: height and width; None leaves them dynamic.
    """
    random = np.random.default_rng(1)
    weights: dict[str, Any] = {}
    nodes: list[onnx.NodeProto] = []

    def conv(source: str, target: str, shape: tuple[int, ...], name: str, *, relu: bool = True) -> str:
        weights[f"{name}.weight"] = random.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape)
        weights[f"{name}.bias"] = random.normal(0, 0.1, shape[0])
        made = f"{target}_conv" if relu else target
        padding = [shape[2] // 2] * 4
        nodes.append(
            helper.make_node(
                "Conv", [source, f"{name}.weight", f"{name}.bias"], [made], name=f"{name}/Conv",
                kernel_shape=list(shape[2:]), pads=padding, strides=[2, 2] if "down" in name else [1, 1],
            )
        )  # fmt: skip
        if relu:
            nodes.append(helper.make_node("Relu", [made], [target], name=f"{name}/Relu"))
        return target

    first = conv("spatial_features", "first", (16, CHANNELS, 3, 3), "/backbone/blocks.0")
    second = conv(first, "second", (32, 16, 3, 3), "/backbone/down.1")
    weights["deblock.weight"] = random.normal(0, 0.1, (32, 16, 2, 2))
    nodes.append(
        helper.make_node(
            "ConvTranspose", [second, "deblock.weight"], ["up"], name="/neck/deblocks.1/ConvTranspose",
            kernel_shape=[2, 2], strides=[2, 2],
        )
    )  # fmt: skip
    nodes.append(helper.make_node("Concat", [first, "up"], ["joined"], name="/neck/Concat", axis=1))
    shared = conv("joined", "shared", (16, 32, 3, 3), "/head/shared")
    for name, channels in HEADS.items():
        inner = conv(shared, f"{name}_inner", (16, 16, 3, 3), f"/head/{name}.0")
        conv(inner, name, (channels, 16, 1, 1), f"/head/{name}.1", relu=False)
    height, width = (size, size) if size else ("height", "width")
    return _model(
        nodes,
        {"spatial_features": ["batch_size", CHANNELS, height, width]},
        {name: ["batch_size", channels, height, width] for name, channels in HEADS.items()},
        weights,
    )


def _model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[Any]],
    outputs: dict[str, list[Any]],
    weights: dict[str, Any],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def make_workspace(
    root: Path, models: dict[str, onnx.ModelProto] | None = None, config: dict[str, Any] | None = None
) -> Workspace:
    """A workspace in which the models were exported.

    Args:
        root: where.
        models: component name to ONNX model; the encoder and the head when left out.
        config: what differs from the default deploy config.
    """
    models = models if models is not None else {ENCODER: encoder(), HEAD: head()}
    ws = Workspace.create(root)
    deploy = DeployConfig.model_validate({"model": {"type": "centerpoint"}, **(config or {})})
    with ws.stage("export", tool="trt_builder") as stage:
        for name, model in models.items():
            with stage.artifact(f"onnx/{name}.onnx", kind="onnx") as path:
                onnx.save(model, str(path))
        stage.spec(
            ModelSpec(
                model="centerpoint",
                task="detection3d",
                classes=["car", "truck", "pedestrian"],
                components=[_component(name, model) for name, model in models.items()],
                parameters={"max_voxels": 200, "max_points_per_voxel": POINTS, "grid_size": [16, 16, 1]},
            )
        )
        stage.config(resolved(deploy))
    return ws


def _component(name: str, model: onnx.ModelProto) -> ComponentSpec:
    def tensors(values: Any) -> list[TensorSpec]:
        return [
            TensorSpec(
                name=value.name,
                dtype="float32",
                shape=[
                    size.dim_value if size.HasField("dim_value") else size.dim_param
                    for size in value.type.tensor_type.shape.dim
                ],
            )
            for value in values
        ]

    return ComponentSpec(
        name=name,
        inputs=tensors(model.graph.input),
        outputs=tensors(model.graph.output),
        onnx=f"onnx/{name}.onnx",
    )
