"""From an ONNX file to a TensorRT network with the policy's precisions set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shared import onnx_graph
from shared.errors import BuildError, EnvironmentLacks
from trt_builder import compat
from trt_builder.compat import TensorRT
from trt_builder.misread import refuse_misread
from trt_builder.policies import Resolved


def parse(tensorrt: TensorRT, builder: Any, logger: Any, path: Path, *, strongly_typed: bool, component: str) -> Any:
    """Parse an ONNX file.

    Args:
        tensorrt: the TensorRT.
        builder: its builder.
        logger: its logger.
        path: the file; weights in files beside it are found.
        strongly_typed: the types in the graph are binding.
        component: for errors.

    Raises:
        BuildError: the parser refuses a node; names it, its operator and its position.
        EnvironmentLacks: an operator that only other TensorRTs have or read right, or a library that is missing.
    """
    trt = tensorrt.trt
    model = onnx_graph.load(path)
    compat.refuse_operators(tensorrt, {node.op_type for node in model.graph.node}, where=component)
    refuse_misread(tensorrt, model, where=component)
    network = builder.create_network(compat.network_flags(tensorrt, strongly_typed=strongly_typed))
    # Without one it gets the number of networks that the process has made, and the engine would hold that.
    network.name = component
    parser = trt.OnnxParser(network, logger)
    try:
        parsed = parser.parse_from_file(str(path))
    except RuntimeError as error:
        # 8.6 opens libraries of its own while it parses some operators, and throws where they are missing.
        raise EnvironmentLacks(
            f"{tensorrt.title} can't parse the graph here: {error}",
            where=component,
            hint="install all libraries of this TensorRT, or export the model without the operator",
        ) from error
    if not parsed:
        errors = [compat.parser_error(trt, parser.get_error(index)) for index in range(parser.num_errors)]
        raise parse_failure(tensorrt, component, path, errors)
    # The parser owns the weights that the network points to.
    return network, parser


def parse_failure(
    tensorrt: TensorRT, component: str, path: Path, errors: list[tuple[int, str, str, str]]
) -> BuildError | EnvironmentLacks:
    """The error for a graph that the parser refused.

    Args:
        tensorrt: the TensorRT.
        component: what was parsed.
        path: the ONNX file; names what the parser gives by position alone.
        errors: position, name, operator (both may be empty) and the parser's words, per error.
    """
    if not errors:
        return BuildError("the ONNX parser refused the graph and gave no reason", where=component)
    position, name, operator, description = errors[0]
    nodes = onnx_graph.load(path).graph.node
    if not operator and 0 <= position < len(nodes):
        operator, name = nodes[position].op_type, onnx_graph.node_name(nodes[position])
    if operator in compat.OPERATORS:
        return compat.lacks_operator(tensorrt, operator, where=component)
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    unknown = any(sign in description for sign in ("Plugin not found", "No importer registered", "plugin"))
    advice = (
        "export without it, name a library that has it in tensorrt.plugin_libraries, or use a newer TensorRT"
        if unknown
        else "try another opset (export.opset_version) or a simplified graph (export.simplify)"
    )
    words = " ".join(description.split())
    return BuildError(
        f"node {position} '{name}' ({operator}) can't be parsed: {words}{more}", where=component, hint=advice
    )


def set_precisions(tensorrt: TensorRT, network: Any, resolved: Resolved) -> None:
    """Make the policy binding, layer by layer, on a weakly typed TensorRT (8.6, 10.x).

    Matrix layers get the precision that the policy asks for, layers of ``keep_fp32`` get FP32; under ``strongly_typed``
    every layer gets the type that the graph gives it. INT8 layers are left alone: their Q/DQ nodes say it already.

    Args:
        tensorrt: the TensorRT.
        network: the parsed network; changed.
        resolved: the policy.
    """
    types = _data_types(tensorrt)
    wanted = {} if resolved.policy.low is None else dict(resolved.expected)
    for name in resolved.keep:
        wanted[name] = "fp32"
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if resolved.policy.typed:
            _bind_to_graph(tensorrt, layer)
        elif (precision := wanted.get(layer.name)) in types and (floating := _floating_outputs(tensorrt, layer)):
            outputs = floating if layer.name in resolved.keep else []
            compat.set_precision(tensorrt, layer, types[precision], outputs)


def _data_types(tensorrt: TensorRT) -> dict[str, Any]:
    trt = tensorrt.trt
    types = {"fp32": trt.DataType.FLOAT, "fp16": trt.DataType.HALF}
    if compat.has(trt, "DataType.BF16"):
        types["bf16"] = compat.need(tensorrt, "DataType.BF16", "BF16")
    return types


def _floating_outputs(tensorrt: TensorRT, layer: Any) -> list[int]:
    floating = tuple(_data_types(tensorrt).values())
    return [index for index in range(layer.num_outputs) if layer.get_output(index).dtype in floating]


def _bind_to_graph(tensorrt: TensorRT, layer: Any) -> None:
    trt = tensorrt.trt
    # Constants, shapes and quantization keep what they have; a cast's output type is the cast.
    if layer.type in (trt.LayerType.CONSTANT, trt.LayerType.SHAPE, trt.LayerType.QUANTIZE, trt.LayerType.DEQUANTIZE):
        return
    floating = _floating_outputs(tensorrt, layer)
    if floating:
        compat.set_precision(tensorrt, layer, layer.get_output(floating[0]).dtype, floating)
