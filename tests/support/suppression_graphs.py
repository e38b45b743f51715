"""Graphs that do nothing but suppress boxes: by ONNX's operator, and by TensorRT's plugin, as YOLOX's exports end."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BOXES, CLASSES, KEPT = 64, 3, 20
IOU, SCORE = 0.5, 0.1

_PLUGIN_OUTPUTS = {
    "num_detections": (TensorProto.INT32, [1, 1]),
    "detection_boxes": (TensorProto.FLOAT, [1, KEPT, 4]),
    "detection_scores": (TensorProto.FLOAT, [1, KEPT]),
    "detection_classes": (TensorProto.INT32, [1, KEPT]),
}


def standard() -> onnx.ModelProto:
    """corners (1, N, 4) and scores (1, C, N) to scores in which those of suppressed boxes are zero."""
    weights = {
        "most": np.array([KEPT], np.int64), "iou": np.array([IOU], np.float32), "least": np.array([SCORE], np.float32),
        "none": np.array(0, np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("NonMaxSuppression", ["corners", "scores", "most", "iou", "least"], ["rows"], name="nms"),
        helper.make_node("GatherND", ["scores", "rows"], ["values"]),
        helper.make_node("Mul", ["scores", "none"], ["zeros"]),
        helper.make_node("ScatterND", ["zeros", "rows", "values"], ["kept"]),
    ]
    scores = [1, CLASSES, BOXES]
    return _model(nodes, scores, {"kept": (TensorProto.FLOAT, scores)}, weights)


def plugin() -> onnx.ModelProto:
    """corners (1, N, 4) and scores (1, N, C) to the four tensors of EfficientNMS_TRT."""
    node = helper.make_node(
        "EfficientNMS_TRT", ["corners", "scores"], list(_PLUGIN_OUTPUTS), name="nms", domain="TRT",
        background_class=-1, box_coding=0, class_agnostic=0, iou_threshold=IOU, max_output_boxes=KEPT,
        plugin_version="1", score_activation=0, score_threshold=SCORE,
    )  # fmt: skip
    return _model([node], [1, BOXES, CLASSES], _PLUGIN_OUTPUTS, {})


def _model(nodes: list[Any], scores: list[int], outputs: dict[str, Any], weights: dict[str, Any]) -> onnx.ModelProto:
    inputs = {"corners": (TensorProto.FLOAT, [1, BOXES, 4]), "scores": (TensorProto.FLOAT, scores)}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("TRT", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def boxes() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Corners (N, 4), scores (N,) and labels (N,): many overlap, few are equal."""
    random = np.random.default_rng(0)
    start = random.uniform(0, 40, (BOXES, 2))
    corners = np.concatenate([start, start + random.uniform(10, 30, (BOXES, 2))], axis=1).astype(np.float32)
    return corners, random.uniform(0, 1, BOXES).astype(np.float32), random.integers(0, CLASSES, BOXES)
