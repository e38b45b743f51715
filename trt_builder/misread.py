"""Nodes that TensorRT 8.6 takes without a word and computes otherwise than ONNX means them.

Its parser skips attributes and inputs that came with opsets it doesn't know. Found by building engines of one operator
and comparing them with ONNX Runtime (tests/gpu/test_operators.py, 8.6.0); newer parsers compute these forms or refuse
them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shared.errors import EnvironmentLacks
from shared.lazy import lazy_import
from shared.onnx_graph import node_name
from trt_builder.compat import TensorRT

if TYPE_CHECKING:
    import onnx
else:
    onnx = lazy_import("onnx")

# The first release whose parser knows opset 18.
_FIRST_RIGHT = 10

# ReduceSum has had its axes as an input since opset 13, which this parser knows; it reads ReduceLogSum in the same way.
_AXES_FROM_ATTRIBUTE = frozenset(
    f"Reduce{name}" for name in ("Max", "Min", "Mean", "Prod", "L1", "L2", "SumSquare", "LogSumExp")
)

_NEWER = "build with TensorRT 10.0 or newer"
_OPSET_17 = f"export with export.opset_version: 17, or {_NEWER}"
_WITHOUT = f"export the model without it, or {_NEWER}"


def refuse_misread(installed: TensorRT, model: onnx.ModelProto, *, where: str) -> None:
    """Stop before an engine is built that would give wrong numbers.

    Args:
        installed: the TensorRT that would parse the graph.
        model: the graph.
        where: the component, for the error.

    Raises:
        EnvironmentLacks: this TensorRT misreads a node; names it and what to do.
    """
    if installed.flavor == "rtx" or int(installed.version.split(".")[0]) >= _FIRST_RIGHT:
        return
    for node in model.graph.node:
        misread = _misread(node, model)
        if misread is not None:
            reason, hint = misread
            raise EnvironmentLacks(
                f"{installed.title} misreads node '{node_name(node)}' ({node.op_type}): {reason}",
                where=where,
                hint=hint,
            )


def _misread(node: onnx.NodeProto, model: onnx.ModelProto) -> tuple[str, str] | None:
    """What goes wrong with the node, and the way out."""
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type in ("ScatterElements", "ScatterND") and attributes.get("reduction", b"none") != b"none":
        return f"it ignores reduction='{attributes['reduction'].decode()}'", _WITHOUT
    if node.op_type == "Resize":
        if attributes.get("antialias"):
            return "it ignores antialias", _WITHOUT
        if attributes.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
            return "it ignores keep_aspect_ratio_policy", _WITHOUT
    if node.op_type in _AXES_FROM_ATTRIBUTE and len([*filter(None, node.input)]) > 1:
        return "it takes axes from an attribute only, and reduces over all of them otherwise", _OPSET_17
    if "num_outputs" in attributes and node.op_type == "Split" and not _is_even(node, attributes, model):
        return "it cuts the last part of an uneven split", _OPSET_17
    return None


def _is_even(node: onnx.NodeProto, attributes: dict[str, Any], model: onnx.ModelProto) -> bool:
    """Whether the parts of a Split are known to be equally large."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {value.name: value.type.tensor_type.shape.dim for value in (*graph.input, *graph.value_info)}
    sizes = shapes.get(node.input[0])
    if not sizes:
        return False
    size = sizes[attributes.get("axis", 0)]
    return bool(size.HasField("dim_value") and size.dim_value % attributes["num_outputs"] == 0)
