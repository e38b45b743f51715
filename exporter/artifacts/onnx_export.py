"""PyTorch to ONNX, by either of PyTorch's two exporters."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from exporter.component import Component
from exporter.quiet import quiet
from shared import onnx_graph
from shared.errors import ExportError
from shared.lazy import lazy_import

torch = lazy_import("torch")
onnx = lazy_import("onnx")

# The opsets that PyTorch's exporters write; of others, files are brought there by ONNX's own converter.
_WRITES = {"torchscript": (16, 20), "dynamo": (18, 22)}

# Above this, protobuf can't hold the file, and the weights go into a file beside it.
_PROTOBUF_LIMIT = 2**31 - 1


def export_onnx(
    component: Component,
    path: Path,
    *,
    exporter: Literal["torchscript", "dynamo"],
    opset_version: int,
    do_constant_folding: bool = True,
) -> None:
    """Write a component as an ONNX file.

    Args:
        component: what to export.
        path: the file to write.
        exporter: ``torchscript`` traces the module; ``dynamo`` captures it with torch.export.
        opset_version: opset of the default domain.
        do_constant_folding: compute what is constant; the dynamo exporter's optimizer always does.

    Raises:
        ExportError: PyTorch can't export the module, or not with this opset.
    """
    lowest, highest = _WRITES[exporter]
    written = min(max(opset_version, lowest), highest)
    options: dict[str, Any] = {
        "input_names": component.input_names(),
        "output_names": component.output_names(),
        "opset_version": written,
        "export_params": True,
        "keep_initializers_as_inputs": False,
    }
    if exporter == "torchscript":
        options |= {
            "dynamo": False,
            "dynamic_axes": component.dynamic_axes(),
            "do_constant_folding": do_constant_folding,
        }
    else:
        axes = component.dynamic_axes()
        options |= {
            "dynamo": True,
            "external_data": False,
            "optimize": do_constant_folding,
            "verbose": False,
            "dynamic_shapes": tuple(
                {axis: torch.export.Dim(name) for axis, name in axes[tensor.name].items()} or None
                for tensor in component.inputs
            ),
        }
    try:
        with quiet(), torch.no_grad():
            torch.onnx.export(component.module, component.trace_inputs(), str(path), **options)
    except OSError:
        raise  # a full disk says nothing about the module
    # PyTorch's exporters raise whatever the module's code and their own passes raise; all of it means one thing.
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise ExportError(
            f"PyTorch's {exporter} exporter failed ({type(error).__name__}: {lines[0] if lines else ''})",
            where=component.name,
            hint="try the other one with --set export.exporter=…; --debug shows where",
        ) from error
    if opset_version != written:
        _convert(component, path, written, opset_version, f"the {exporter} exporter")
    _name_axes(component, path)
    actual = onnx_graph.opset(onnx.load(str(path), load_external_data=False))
    if actual != opset_version:
        raise ExportError(
            f"PyTorch's {exporter} exporter wrote opset {actual}, not {opset_version}",
            where=component.name,
            hint=f"use export.exporter torchscript for opset {opset_version}, or export.opset_version {actual}",
        )


def _convert(component: Component, path: Path, written: int, opset_version: int, origin: str) -> None:
    """Bring a file to another opset, in place.

    Raises:
        ExportError: an operator has no equivalent there.
    """
    model = onnx.load(str(path))
    if opset_version < written:
        for node in model.graph.node:
            _drop_defaults(node, written)
    try:
        converted = onnx.version_converter.convert_version(model, opset_version)
    # The converter is C++; what it can't do comes as a RuntimeError or its own ConvertError.
    except (RuntimeError, onnx.version_converter.ConvertError) as error:
        raise ExportError(
            f"the graph of {origin} can't be converted to opset {opset_version} ({str(error).splitlines()[0]})",
            where=component.name, hint=f"use the other export.exporter, or export.opset_version {written}",
        ) from error  # fmt: skip
    save(converted, path)


def _drop_defaults(node: Any, opset_version: int) -> None:
    """Remove a node's attributes that say what holds anyway: older opsets don't know some of them."""
    defaults = onnx.defs.get_schema(node.op_type, opset_version, node.domain).attributes
    kept = [
        attribute
        for attribute in node.attribute
        if attribute.name not in defaults
        or onnx.helper.get_attribute_value(attribute) != _default(defaults[attribute.name])
    ]
    del node.attribute[:]
    node.attribute.extend(kept)


def _default(definition: Any) -> Any:
    """An attribute's default value, None where it has none."""
    value = definition.default_value
    return onnx.helper.get_attribute_value(value) if value.type else None


def _name_axes(component: Component, path: Path) -> None:
    """Give axes the component's names and sizes where the exporter left others.

    The dynamo exporter leaves expressions of the inputs' names, TorchScript's names of its own where it lost a size on
    the way. What stands there is checked with what ONNX Runtime gives.
    """
    model = onnx.load(str(path))
    shapes = {tensor.name: tensor.shape for tensor in (*component.inputs, *component.outputs)}
    changed = False
    for value in (*model.graph.input, *model.graph.output):
        for axis, wanted in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
            if isinstance(wanted, str) and axis.dim_param != wanted:
                axis.dim_param, changed = wanted, True
            elif isinstance(wanted, int) and axis.dim_param:
                axis.dim_value, changed = wanted, True
    if changed:
        save(model, path)


def save(model: Any, path: Path) -> None:
    """Write an ONNX model; one file.

    Raises:
        ExportError: it is larger than one ONNX file can be.
    """
    if model.ByteSize() > _PROTOBUF_LIMIT:
        raise ExportError("the model is larger than 2 GiB, which one ONNX file can't hold", where=path.name)
    onnx.save(model, str(path))
