"""What is asked of an ONNX graph: its content's hash, inputs, node names, types, and quantized nodes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.errors import InputError
from shared.lazy import lazy_import

if TYPE_CHECKING:
    import onnx
else:
    onnx = lazy_import("onnx")

# Operators that do nearly all of a network's arithmetic; a precision policy is about these.
MATRIX_OPERATORS = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})


@dataclass(frozen=True)
class GraphInput:
    """An input of the graph.

    Attributes:
        name: as in the file.
        shape: a size, or for a dynamic axis its name (empty when it has none), per axis.
    """

    name: str
    shape: tuple[int | str, ...]

    @property
    def dynamic(self) -> bool:
        """Whether any axis may change its size."""
        return any(isinstance(size, str) for size in self.shape)


def load(path: Path, *, weights: bool = True) -> onnx.ModelProto:
    """Read an ONNX file, external data included unless ``weights`` are not wanted.

    Raises:
        InputError: not an ONNX file, truncated, or its external data is missing.
    """
    # Protobuf's DecodeError lives in a package that is not ours to import; it is what is left of Exception here.
    try:
        return onnx.load(str(path), load_external_data=weights)
    except Exception as error:
        raise InputError(
            f"not a whole ONNX file ({str(error).splitlines()[0] if str(error) else type(error).__name__})",
            where=str(path),
            hint="export it again: exporter export --force",
        ) from error


def content_hash(file: str, external: Mapping[str, str]) -> str:
    """Sha256 over the sha256 of an ONNX file and of the external data files that it names (name to sha256)."""
    digest = hashlib.sha256(file.encode())
    for name in sorted(external):
        digest.update(name.encode())
        digest.update(external[name].encode())
    return digest.hexdigest()


def node_name(node: onnx.NodeProto) -> str:
    """Name of a node; TensorRT's parser gives nodes without a name the same one."""
    return node.name or f"node_of_{node.output[0]}"


def opset(model: onnx.ModelProto) -> int:
    """Version of ONNX's own operators in a file; 0 where it names none."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller must give: those that are no initializers."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def names_read(node: onnx.NodeProto) -> list[str]:
    """Names that a node reads, those that the graphs in its attributes (If, Loop) take from outside included."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            made = {value.name for value in inner.input} | {tensor.name for tensor in inner.initializer}
            for each in inner.node:
                names += [name for name in names_read(each) if name not in made]
                made |= set(each.output)
            names += [value.name for value in inner.output if value.name not in made]
    return names


def graph_inputs(model: onnx.ModelProto) -> list[GraphInput]:
    """Names and shapes of `inputs`."""
    return [GraphInput(value.name, _shape(value)) for value in inputs(model)]


def dtype(value: onnx.ValueInfoProto) -> str:
    """NumPy's name of the type of an input or output."""
    return str(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name)


def _shape(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    return tuple(axis.dim_value if has_size(axis) else axis.dim_param for axis in value.type.tensor_type.shape.dim)


def has_size(axis: onnx.TensorShapeProto.Dimension) -> bool:
    """Whether an axis is of one size. Some exporters write -1 for any."""
    return bool(axis.HasField("dim_value") and axis.dim_value >= 0)


def tensors(model: onnx.ModelProto) -> dict[str, list[dict[str, Any]]]:
    """Inputs and outputs as JSON: name, dtype (NumPy's name of it), and shape with the names of dynamic axes."""

    def described(values: Iterable[onnx.ValueInfoProto]) -> list[dict[str, Any]]:
        return [{"name": value.name, "dtype": dtype(value), "shape": list(_shape(value))} for value in values]

    return {"inputs": described(inputs(model)), "outputs": described(model.graph.output)}


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether the graph has Q/DQ nodes."""
    return any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node)


def tensor_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type (``onnx.TensorProto.FLOAT`` ...) of every tensor whose type can be inferred.

    Raises:
        InputError: types that contradict each other, or a domain that the file does not import.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except onnx.shape_inference.InferenceError as error:
        raise InputError(
            f"the types in this graph can't be inferred: {str(error).splitlines()[0]}",
            where=f"ONNX graph '{model.graph.name}'",
            hint="export it again: exporter export --force",
        ) from error
    graph = inferred.graph
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.HasField("tensor_type")
    }
    types.update({tensor.name: tensor.data_type for tensor in graph.initializer})
    return types


def matrix_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that multiply matrices of activations, in order; products of shapes (integers) are not among them."""
    types = tensor_types(model)
    floating = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    return [
        node
        for node in model.graph.node
        if node.op_type in MATRIX_OPERATORS and types.get(node.output[0], onnx.TensorProto.FLOAT) in floating
    ]


def producers(model: onnx.ModelProto) -> Callable[[str], onnx.NodeProto | None]:
    """A function that gives the node that makes a tensor, or None for inputs and initializers."""
    table = {output: node for node in model.graph.node for output in node.output}
    return table.get


def outputs_behind(model: onnx.ModelProto, operators: Collection[str]) -> set[str]:
    """Names of the outputs that are computed from what a node of one of these operators makes."""
    reached: set[str] = set()
    for node in model.graph.node:
        if node.op_type in operators or not reached.isdisjoint(node.input):
            reached.update(node.output)
    return reached & {output.name for output in model.graph.output}


def low_types(model: onnx.ModelProto) -> set[str]:
    """Which of ``fp16`` and ``bf16`` some tensor of the graph has."""
    names: dict[int, str] = {onnx.TensorProto.FLOAT16: "fp16", onnx.TensorProto.BFLOAT16: "bf16"}
    return {names[kind] for kind in tensor_types(model).values() if kind in names}
