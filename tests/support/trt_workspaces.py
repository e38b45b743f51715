"""Small networks shaped like CenterPoint's two components, and workspaces that hold them as the exporter does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
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
_EPSILON = 1e-3  # of batch norms in pillar encoders


def profile(points: int, *voxels: int) -> dict[str, Any]:
    """Profile of the encoder: smallest, tuned-for and largest number of voxels."""
    kinds = ("min_shape", "opt_shape", "max_shape")
    return {"input_features": {kind: [number, points, FEATURES] for kind, number in zip(kinds, voxels, strict=True)}}


def encoder(channels: int = CHANNELS, *, norm: bool = False) -> onnx.ModelProto:
    """(num_voxels, num_max_points, 11) -> (num_voxels, 1, C): linear, ReLU, maximum.

    Args:
        channels: C.
        norm: with the batch normalization and the transposes around it that our exporter folds, and others don't.
    """
    random = np.random.default_rng(0)
    weight = random.normal(0, 0.3, (FEATURES, channels))
    scale, bias = random.uniform(0.5, 1.5, channels), random.normal(0, 0.1, channels)
    mean, variance = random.normal(0, 0.1, channels), random.uniform(1e-6, 1.0, channels)
    linear = helper.make_node("MatMul", ["input_features", "weight"], ["linear"], name="/pfn/linear/MatMul")
    if norm:
        weights = {"weight": weight, "scale": scale, "bias": bias, "mean": mean, "variance": variance}
        nodes = [
            linear,
            helper.make_node("Transpose", ["linear"], ["channels"], name="/pfn/Transpose", perm=[0, 2, 1]),
            helper.make_node(
                "BatchNormalization", ["channels", "scale", "bias", "mean", "variance"], ["normed"],
                name="/pfn/norm/BatchNormalization", epsilon=_EPSILON,
            ),
            helper.make_node("Relu", ["normed"], ["relu"], name="/pfn/Relu"),
            helper.make_node("Transpose", ["relu"], ["points"], name="/pfn/Transpose_1", perm=[0, 2, 1]),
        ]  # fmt: skip
    else:
        factor = scale / np.sqrt(variance + _EPSILON)
        weights = {"weight": weight * factor, "bias": bias - mean * factor}
        nodes = [
            linear,
            helper.make_node("Add", ["bias", "linear"], ["biased"], name="/pfn/linear/Add"),
            helper.make_node("Relu", ["biased"], ["points"], name="/pfn/Relu"),
        ]
    largest = helper.make_node(
        "ReduceMax", ["points"], ["pillar_features"], name="/pfn/ReduceMax", axes=[1], keepdims=1
    )
    return _model(
        [*nodes, largest],
        {"input_features": ["num_voxels", "num_max_points", FEATURES]},
        {"pillar_features": ["num_voxels", 1, channels]},
        weights,
    )


@dataclass(frozen=True)
class Network:
    """Sizes of a SECOND backbone with its neck and heads.

    Attributes:
        channels_in: channels of the bird's-eye-view image.
        blocks: per stage, channels, number of further convolutions, stride of the first.
        neck: per stage, output channels and upsampling: 0.5 is a strided convolution, 1 a 1x1, 2 a transposed one.
        shared: channels of the heads.
    """

    channels_in: int
    blocks: tuple[tuple[int, int, int], ...]
    neck: tuple[tuple[int, float], ...]
    shared: int


SMALL = Network(CHANNELS, ((16, 0, 1), (32, 0, 2)), ((16, 1), (16, 2)), 16)
# AWML's 121 m base model: 16 backbone, 3 neck, 1 shared and 12 head convolutions; output at half the grid.
FULL = Network(32, ((64, 3, 1), (128, 5, 2), (256, 5, 2)), ((128, 0.5), (128, 1), (128, 2)), 64)
FULL_PARAMETERS: dict[str, Any] = {
    "point_cloud_range": [-122.4, -122.4, -3.0, 122.4, 122.4, 5.0],
    "voxel_size": [0.24, 0.24, 8.0],
    "grid_size": [1020, 1020, 1],
    "max_points_per_voxel": 32,
    "max_voxels": 96000,
    "points": {
        "load_dim": 5,
        "use_dim": [0, 1, 2, 3, 4],
        "sweeps_num": 1,
        "remove_close": True,
        "pad_empty_sweeps": True,
        "range_filter": None,
    },
    "decoration": {"raw_features": 5, "cluster_center": True, "voxel_center": "xyz"},
    "encoder_channels": 32,
    "out_size_factor": 2,
    "norm_bbox": True,
    "bbox_coder": {"max_num": 500, "score_threshold": 0.1, "post_center_range": [-200, -200, -10, 200, 200, 10]},
    "nms": {"type": "circle", "radius": [1.0], "pre_max_size": None, "post_max_size": 100},
    "tasks": [
        {
            "classes": ["car", "truck", "pedestrian"],
            "outputs": {name: name for name in ("heatmap", "reg", "height", "dim", "rot", "vel")},
        }
    ],
}


class _Graph:
    def __init__(self) -> None:
        self.random = np.random.default_rng(1)
        self.weights: dict[str, Any] = {}
        self.nodes: list[onnx.NodeProto] = []

    def conv(self, source: str, name: str, shape: tuple[int, ...], stride: int = 1, *, relu: bool = True) -> str:
        """A convolution with weights (out, in, k, k); returns the name of its output."""
        # Outputs of a few units, as a trained network has them: no score is 1.
        self._weights(name, shape, shape[0], 1.0 if relu else 0.1)
        padding = [(shape[2] - stride + 1) // 2 if shape[2] == 2 else shape[2] // 2] * 4
        self._node("Conv", source, name, kernel_shape=list(shape[2:]), pads=padding, strides=[stride] * 2)
        return self._relu(name) if relu else name

    def deconv(self, source: str, name: str, shape: tuple[int, ...]) -> str:
        """A transposed convolution of stride 2 with weights (in, out, 2, 2)."""
        self._weights(name, shape, shape[1])
        self._node("ConvTranspose", source, name, kernel_shape=[2, 2], strides=[2, 2])
        return self._relu(name)

    def _weights(self, name: str, shape: tuple[int, ...], outputs: int, gain: float = 1.0) -> None:
        self.weights[f"{name}.weight"] = self.random.normal(0, gain * np.sqrt(2 / np.prod(shape[1:])), shape)
        self.weights[f"{name}.bias"] = self.random.normal(0, 0.1, outputs)

    def _node(self, operator: str, source: str, name: str, **attributes: Any) -> None:
        inputs = [source, f"{name}.weight", f"{name}.bias"]
        self.nodes.append(helper.make_node(operator, inputs, [name], name=f"{name}/{operator}", **attributes))

    def _relu(self, name: str) -> str:
        self.nodes.append(helper.make_node("Relu", [name], [f"{name}.relu"], name=f"{name}/Relu"))
        return f"{name}.relu"


def head(size: int | None = 16, network: Network = SMALL) -> onnx.ModelProto:
    """(batch_size, C, height, width) -> the six heads: convolutions, transposed ones, a concatenation.

    Args:
        size: height and width; None leaves them dynamic.
        network: the sizes.
    """
    graph = _Graph()
    tensor, channels = "spatial_features", network.channels_in
    joined: list[str] = []
    for stage, ((width, layers, stride), (out, up)) in enumerate(zip(network.blocks, network.neck, strict=True)):
        for layer in range(layers + 1):
            name = f"/backbone/blocks.{stage}/blocks.{stage}.{layer}"
            tensor = graph.conv(tensor, name, (width, channels, 3, 3), stride if layer == 0 else 1)
            channels = width
        name = f"/neck/deblocks.{stage}"
        if up > 1:
            joined.append(graph.deconv(tensor, name, (width, out, 2, 2)))
        else:
            kernel = int(1 / up)
            joined.append(graph.conv(tensor, name, (out, width, kernel, kernel), kernel))
    graph.nodes.append(helper.make_node("Concat", joined, ["joined"], name="/neck/Concat", axis=1))
    joined_channels = sum(out for out, _ in network.neck)
    shared = graph.conv("joined", "/head/shared", (network.shared, joined_channels, 3, 3))
    for name, outputs in HEADS.items():
        inner = graph.conv(shared, f"/head/{name}.0", (network.shared, network.shared, 3, 3))
        last = graph.conv(inner, f"/head/{name}.1", (outputs, network.shared, 1, 1), relu=False)
        graph.nodes[-1].output[0] = name
        assert last == f"/head/{name}.1"
    ratio = int(1 / network.neck[0][1])
    sizes: list[Any] = [size, size] if size else ["height", "width"]
    made: list[Any] = [size // ratio, size // ratio] if size else ["output_height", "output_width"]
    return _model(
        graph.nodes,
        {"spatial_features": ["batch_size", network.channels_in, *sizes]},
        {name: ["batch_size", outputs, *made] for name, outputs in HEADS.items()},
        graph.weights,
    )


def quantize(model: onnx.ModelProto, scale: float = 0.05, skip: Sequence[str] = ()) -> onnx.ModelProto:
    """A copy with Q/DQ nodes before the activations and weights of every Conv, as ModelOpt places them.

    Args:
        model: the graph.
        scale: of all activations.
        skip: regular expressions that match anywhere in the names of nodes to leave as they are.
    """
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    graph = quantized.graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    done: dict[str, str] = {}

    def add_pair(tensor: str, scales: Any, axis: int | None) -> str:
        if tensor not in done:
            zeros = np.zeros(np.shape(scales), np.int8)
            graph.initializer.append(numpy_helper.from_array(np.asarray(scales, np.float32), f"{tensor}.scale"))
            graph.initializer.append(numpy_helper.from_array(zeros, f"{tensor}.zero"))
            attributes = {} if axis is None else {"axis": axis}
            for operator, source, target in (
                ("QuantizeLinear", tensor, f"{tensor}.q"),
                ("DequantizeLinear", f"{tensor}.q", f"{tensor}.dq"),
            ):
                inputs = [source, f"{tensor}.scale", f"{tensor}.zero"]
                nodes.append(helper.make_node(operator, inputs, [target], name=f"{tensor}/{operator}", **attributes))
            done[tensor] = f"{tensor}.dq"
        return done[tensor]

    for node in graph.node:
        if node.op_type == "Conv" and not any(re.search(pattern, node.name) for pattern in skip):
            node.input[0] = add_pair(node.input[0], scale, None)
            weight = weights[node.input[1]]
            node.input[1] = add_pair(node.input[1], np.abs(weight).max(axis=(1, 2, 3)) / 127, 0)
        nodes.append(node)
    ordered = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(ordered)
    onnx.checker.check_model(quantized)
    return quantized


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
    ws = Workspace.create(root)
    export(ws, models if models is not None else {ENCODER: encoder(), HEAD: head()}, config)
    return ws


def export(ws: Workspace, models: dict[str, onnx.ModelProto], config: dict[str, Any] | None = None) -> None:
    """Record models in a workspace as the exporter does; again with others is a new export."""
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


def with_other_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph after more training: every convolution, product and bias is another."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    random = np.random.default_rng(7)
    for tensor in changed.graph.initializer:
        if tensor.name.endswith(("weight", "bias")):
            value = numpy_helper.to_array(tensor)
            noise = random.normal(1, 0.3, value.shape).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value * noise, tensor.name))
    return changed


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


def full_size_workspace(root: Path) -> Workspace:
    """A workspace with networks of the 121 m model's size and random weights: 1020 x 1020 grid, 96,000 pillars."""
    ws = make_workspace(
        root,
        {ENCODER: encoder(32), HEAD: head(1020, FULL)},
        {"components": {ENCODER: {"tensorrt_profile": profile(32, 1, 40_000, 96_000)}}},
    )
    with ws.stage("parameters", tool="runtime") as stage:
        stage.spec(ws.spec().model_copy(update={"parameters": FULL_PARAMETERS}))
    return ws


def quantize_workspace(source: Workspace, root: Path) -> Workspace:
    """A workspace with the same components, those with convolutions quantized, and without those that have none."""
    models = {
        component.name: quantize(onnx.load(str(source.path(component.onnx))))
        for component in source.spec().components
        if any(node.op_type == "Conv" for node in onnx.load(str(source.path(component.onnx))).graph.node)
    }
    return make_workspace(root, models, {"tensorrt": source.config()["tensorrt"]})
