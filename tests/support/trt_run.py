"""Runs an engine once, to compare its outputs with those of the ONNX graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from shared import cuda, engines
from trt_builder.messages import Messages, make_logger
from trt_builder.target import Target

_loggers: dict[str, Any] = {}


def logger(target: Target) -> Any:
    """The one logger that TensorRT takes per process."""
    return _loggers.setdefault(target.tensorrt.flavor, make_logger(target.tensorrt.trt, Messages(), layers=False))


def load(target: Target, path: Path, *, version_compatible: bool = False) -> tuple[Any, Any]:
    """Runtime and engine of a plan file; the runtime must outlive the engine."""
    runtime = target.tensorrt.trt.Runtime(logger(target))
    engine = engines.deserialize(runtime, path.read_bytes(), version_compatible=version_compatible)
    assert engine is not None
    return runtime, engine


def run(target: Target, engine: Any, inputs: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """The engine's outputs for ``inputs``."""
    cuda.use_gpu()
    return engines.run_once(target.tensorrt.trt, engine, inputs)


def reference(model: onnx.ModelProto, inputs: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """What the graph gives, computed by ONNX's own reference implementation."""
    names = [output.name for output in model.graph.output]
    return dict(zip(names, ReferenceEvaluator(with_known_qdq(model)).run(names, inputs), strict=True))


def with_known_qdq(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph under opset 19 when it has Q/DQ nodes: the reference implementation knows no older ones."""
    if not any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        return model
    newer = onnx.ModelProto()
    newer.CopyFrom(model)
    newer.opset_import[0].version = 19
    return newer
