"""Workspaces with an engine of `tensorrt_double` whose network answers with the same numbers whatever the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from shared.config import DeployConfig, resolved
from shared.spec import ModelSpec
from shared.workspace import Workspace
from tests.support.tensorrt_double import plans
from tests.support.tensorrt_double.plans import Plan

TARGET = "trt8.6.0-sm90-fp16"


def network(spec: ModelSpec, answer: np.ndarray[Any, Any]) -> onnx.ModelProto:
    """A graph that answers with the same numbers whatever the image; it reads the image, as a network would."""
    (component,) = spec.components
    given, output = component.inputs[0], component.outputs[0]
    axes = list(range(1, len(given.shape)))
    nodes = [
        helper.make_node("ReduceMean", [given.name], ["mean"], axes=axes, keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("ReduceSum", ["nothing"], ["scalar"], keepdims=0),
        helper.make_node("Add", ["answer", "scalar"], [output.name]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(given.name, TensorProto.FLOAT, given.shape)],
        [helper.make_tensor_value_info(output.name, TensorProto.FLOAT, list(answer.shape))],
        [numpy_helper.from_array(answer, "answer"), numpy_helper.from_array(np.zeros(1, np.float32), "zero")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def workspace(root: Path, spec: ModelSpec, answer: np.ndarray[Any, Any], size: tuple[int, int]) -> Path:
    """A workspace with an engine of such a network."""
    ws = Workspace.create(root)
    (component,) = spec.components
    given = component.inputs[0]
    shape = tuple(
        axis if isinstance(axis, int) else fixed for axis, fixed in zip(given.shape, (1, 5, *size), strict=True)
    )
    with ws.stage("export", tool="exporter") as stage:
        config = DeployConfig.model_validate(
            {
                "task_type": spec.task,
                "model": {"type": spec.model, "config": "model.py", "checkpoint": "model.pth"},
                "data": {"format": "folder", "root": str(root)},
            }
        )
        stage.spec(spec)
        stage.config(resolved(config))
        with stage.artifact(component.onnx, kind="onnx") as path:
            onnx.save(network(spec, answer), str(path))
    with ws.stage(f"build:{TARGET}", tool="trt_builder") as stage:
        name = f"tensorrt/{TARGET}/{component.name}.engine"
        plan = Plan(ws.path(component.onnx).read_bytes(), {given.name: (shape, shape, shape)})
        stage.bytes_artifact(name, "engine", plans.write(plan))
        stage.result("engines", f"{TARGET}/{component.name}", {"engine": name, "tensorrt": {"version": "8.6.0"}})
    return ws.root
