"""New weights for an engine that exists: seconds instead of a build, when the graph is the same but for its weights.

Where TensorRT has a parser for it (10.0 and newer), that maps ONNX weights to the engine's. On 8.6 it is done here, by
layer and role, for the layers that the parser of 8.6 makes of CenterPoint's and YOLOX's operators.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared import onnx_graph
from shared.errors import BuildError
from shared.lazy import lazy_import
from trt_builder import compat
from trt_builder.session import Session

if TYPE_CHECKING:
    import onnx
else:
    onnx = lazy_import("onnx")

Array = np.ndarray[Any, Any]

# Layers that the parser made up, to compute shapes: their constants are no weights of the graph, and stay.
_OF_THE_PARSER = "(Unnamed Layer*"


def structure_hash(model: onnx.ModelProto) -> str:
    """Sha256 over a graph without the values of its floating-point weights: what must be equal for a refit."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    # Exporters stamp files with times and hashes of weights, which make no other graph.
    del bare.metadata_props[:]
    bare.graph.doc_string = bare.doc_string = ""
    for tensor in bare.graph.initializer:
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16):
            shape, kind, name = list(tensor.dims), tensor.data_type, tensor.name
            tensor.Clear()
            tensor.name, tensor.data_type = name, kind
            tensor.dims.extend(shape)
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def refit(session: Session, plan: bytes, graph: Path, *, component: str) -> bytes:
    """The plan with the weights of ``graph``.

    Args:
        session: the TensorRT that built the plan.
        plan: an engine built refittable, or stripped of its weights.
        graph: the ONNX file (the derived one where precision is baked in).
        component: for errors.

    Raises:
        BuildError: the engine can't be refitted, or a weight of it is not in the graph.
    """
    trt, logger = session.trt, session.logger
    engine = session.load(plan, component=component)
    if not engine.refittable:
        raise BuildError(
            "the engine was not built refittable", where=component, hint="build with tensorrt.refittable: true"
        )
    refitter = trt.Refitter(engine, logger)
    kept: list[Array] = []
    from_onnx = compat.onnx_refitter(session.target.tensorrt, refitter, logger)
    if from_onnx is None:
        kept = _set_by_role(trt, refitter, onnx_graph.load(graph), component=component)
    elif not from_onnx.refit_from_file(str(graph)):
        raise BuildError(f"the ONNX file does not fit: {session.messages.last()}", where=component)
    if not refitter.refit_cuda_engine():
        missing = ", ".join(f"{layer} {role}" for layer, role in zip(*refitter.get_missing(), strict=True))
        raise BuildError(f"weights are missing: {missing or 'TensorRT does not say which'}", where=component)
    # The arrays must live until the engine has them.
    del kept
    return bytes(memoryview(compat.serialize_with_weights(session.target.tensorrt, engine)))


def _set_by_role(trt: Any, refitter: Any, model: onnx.ModelProto, *, component: str) -> list[Array]:
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = {onnx_graph.node_name(node): node for node in model.graph.node}
    kept = []
    for layer, role in zip(*refitter.get_all(), strict=True):
        value = _value(trt, layer, role, nodes, weights)
        if value is None and role == trt.WeightsRole.CONSTANT and _OF_THE_PARSER in layer:
            continue
        if value is None:
            raise BuildError(
                f"no weights for layer '{layer}' ({role}) in the ONNX file",
                where=component,
                hint="build it instead: trt_builder build",
            )
        kept.append(np.ascontiguousarray(value))
        if not refitter.set_weights(layer, role, trt.Weights(kept[-1])):
            raise BuildError(f"TensorRT does not take the weights of layer '{layer}' ({role})", where=component)
    return kept


def _value(
    trt: Any, layer: str, role: Any, nodes: dict[str, onnx.NodeProto], weights: dict[str, Array]
) -> Array | None:
    """What a layer's role holds, in terms of the ONNX node of the same name."""
    node = nodes.get(layer)
    if node is None:
        return weights.get(layer) if role == trt.WeightsRole.CONSTANT else None
    if node.op_type == "BatchNormalization":
        scale, bias, mean, variance = (weights[name].astype(np.float64) for name in node.input[1:])
        epsilon = next((item.f for item in node.attribute if item.name == "epsilon"), 1e-5)
        factor = scale / np.sqrt(variance + epsilon)
        values = {trt.WeightsRole.SCALE: factor, trt.WeightsRole.SHIFT: bias - mean * factor}
        return values[role].astype(np.float32) if role in values else None
    position = {trt.WeightsRole.KERNEL: 1, trt.WeightsRole.BIAS: 2}.get(role)
    if position is None or position >= len(node.input):
        return None
    return weights.get(node.input[position])
