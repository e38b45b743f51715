"""An engine's layers as TensorRT reports them: kind, kernel, tensors and their types, and the ONNX nodes inside.

Two sources with the same content: the engine inspector's JSON where the engine can be loaded, and the dump in the
builder's log where it can't (TensorRT for RTX on a machine without a GPU). Their words for a type changed over the
versions: "Row major linear FP16 format", "Half", "Channel major INT8 format where channel % 4 == 0". Of tensors with
dynamic shapes 8.6 and 10 report no type at all ("N/A due to dynamic shapes").
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_TYPES = (
    ("bf16", r"\b(BF16|BFloat16)\b"),
    ("fp16", r"\b(FP16|Half)\b"),
    ("int8", r"\b(INT8|Int8)\b"),
    ("fp8", r"\b(FP8|E4M3)\b"),
    ("int4", r"\b(INT4|Int4)\b"),
    ("fp32", r"\b(FP32|Float|Float32)\b"),
    ("int64", r"\b(INT64|Int64)\b"),
    ("int32", r"\b(INT32|Int32)\b"),
    ("bool", r"\b(BOOL|Bool)\b"),
)
_KERNEL_TYPES = {
    "tf32tf32": "fp32",
    "f32f32": "fp32",
    "f16f16": "fp16",
    "bf16bf16": "bf16",
    "i8i8": "int8",
    "e4m3e4m3": "fp8",
}
_MATRIX_KINDS = re.compile(r"conv|correlation|gemm|matrixmultiply|matrix_multiply|fullyconnected|matmul", re.IGNORECASE)
_REFORMAT_KINDS = re.compile(r"reformat", re.IGNORECASE)
_SCALE_KINDS = re.compile(r"^(quantize|dequantize)$", re.IGNORECASE)


@dataclass(frozen=True)
class LayerTensor:
    """A tensor of a layer: name, and its type in our words (empty when it is none that we know)."""

    name: str
    dtype: str


@dataclass(frozen=True)
class Layer:
    """A layer of an engine.

    Attributes:
        name: TensorRT's name of it.
        kind: TensorRT's kind of layer or kernel.
        inputs: activations that it reads.
        outputs: activations that it writes.
        weights: type of its weights, empty when it has none or does not say.
        tactic: name of the kernel.
        nodes: names of the ONNX nodes inside.
    """

    name: str
    kind: str
    inputs: tuple[LayerTensor, ...]
    outputs: tuple[LayerTensor, ...]
    weights: str
    tactic: str
    nodes: tuple[str, ...]

    @property
    def is_matrix(self) -> bool:
        """Whether it multiplies matrices: convolutions and products."""
        return _MATRIX_KINDS.search(self.kind) is not None

    @property
    def is_reformat(self) -> bool:
        """Whether it only moves or converts data between other layers."""
        return _REFORMAT_KINDS.search(self.kind) is not None

    @property
    def is_scale(self) -> bool:
        """Whether it is a Q or DQ node that no other layer took in."""
        return _SCALE_KINDS.search(self.kind) is not None

    @property
    def is_opaque(self) -> bool:
        """Whether it is a region that TensorRT's compiler made of many nodes, without a report of what is inside."""
        return "ForeignNode" in self.name and not self.is_matrix

    @property
    def precision(self) -> str:
        """What it computes in: the type of its first input, or of its output when it reads none; empty when unknown.

        The type of its weights, below FP32, if any input has that: others are added to the product by what was fused.
        Where no types of tensors are reported, the type of the layer's weights counts, and else its kernel's name.
        """
        tensors = self.inputs or self.outputs
        if self.weights != "fp32" and any(tensor.dtype == self.weights for tensor in self.inputs):
            return self.weights
        return (tensors[0].dtype if tensors else "") or self.weights or type_in_kernel(self.tactic)


def type_of(text: str) -> str:
    """Our word for TensorRT's words for a type; empty when it is none that we know."""
    for name, pattern in _TYPES:
        if re.search(pattern, text):
            return name
    return ""


def type_in_kernel(name: str) -> str:
    """The type that a kernel's name begins its operands with (``…_gemm_f16f16_f16f32_…``); empty when there is none."""
    match = re.search(r"_(tf32tf32|bf16bf16|f32f32|f16f16|i8i8|e4m3e4m3)_", name)
    return _KERNEL_TYPES[match[1]] if match else ""


def sums_in_half(name: str) -> bool:
    """Whether a kernel's name says that it accumulates in FP16: ``…_f16f16_f16f16_…``, or ``h16816`` in older names.

    Those that accumulate in FP32 are called ``…_f16f16_f16f32_…`` and ``s16816``.
    """
    return re.search(r"_f16f16_f16f16_|(?<![a-z0-9])h(884|1688|16816)", name) is not None


def from_inspector(text: str) -> list[Layer]:
    """The layers in the inspector's JSON of a whole engine."""
    layers = []
    for entry in json.loads(text, strict=False)["Layers"]:
        # Engines built without detailed verbosity give names alone.
        if isinstance(entry, dict):
            layers.append(_from_json(entry))
        else:
            layers.append(Layer(str(entry), "", (), (), "", "", ()))
    return layers


def _from_json(entry: dict[str, Any]) -> Layer:
    def tensors(key: str) -> tuple[LayerTensor, ...]:
        return tuple(
            LayerTensor(
                str(tensor["Name"]), type_of(f"{tensor.get('Datatype', '')} {tensor.get('Format/Datatype', '')}")
            )
            for tensor in entry.get(key, [])
        )

    weights = entry.get("Weights")
    kind = str(entry.get("LayerType", ""))
    # CaskConvolution, Reformat ... but "gemm" layers of 10.x may hide behind a general kind with a telling parameter.
    if entry.get("ParameterType") in ("Convolution", "Deconvolution", "MatrixMultiply", "FullyConnected"):
        kind = kind if _MATRIX_KINDS.search(kind) else f"{kind} {entry['ParameterType']}"
    name = str(entry["Name"])
    return Layer(
        name=name,
        kind=kind,
        inputs=tensors("Inputs"),
        outputs=tensors("Outputs"),
        weights=type_of(str(weights.get("Type", ""))) if isinstance(weights, dict) else "",
        tactic=str(entry.get("TacticName", "")),
        nodes=_nodes(str(entry.get("Metadata", "")), name),
    )


def from_log(text: str) -> list[Layer]:
    """The layers in the dump that the builder logs: one ``Name: …, LayerType: …, Inputs: [ … ], …`` a line."""
    layers = []
    for line in text.splitlines():
        match = re.match(
            r"Name: (?P<name>.*?), LayerType: (?P<kind>.*?), Inputs: \[(?P<inputs>.*?)\], "
            r"(?:Constants: \[(?P<constants>.*?)\], )?Outputs: \[(?P<outputs>.*?)\], .*?TacticName: (?P<tactic>.*?), "
            r"StreamId: .*?Metadata: (?P<metadata>.*)$",
            _without_sizes(line),
        )
        if match is None:
            continue
        constants = _tensors_in_log(match["constants"] or "")
        layers.append(
            Layer(
                name=match["name"],
                kind=match["kind"],
                inputs=_tensors_in_log(match["inputs"]),
                outputs=_tensors_in_log(match["outputs"]),
                weights=constants[0].dtype if constants else "",
                tactic=match["tactic"],
                nodes=_nodes(match["metadata"], match["name"]),
            )
        )
    return layers


def _without_sizes(line: str) -> str:
    """A line of the dump without the lists of sizes, so that brackets mark the lists of tensors alone."""
    return re.sub(r"(Dimensions|Strides|StrideOrder): \[[^\]]*\], ", "", line)


def _tensors_in_log(text: str) -> tuple[LayerTensor, ...]:
    return tuple(
        LayerTensor(name, type_of(dtype)) for name, dtype in re.findall(r"\{ Name: (.*?), Datatype: (\w+)", text)
    )


def _nodes(metadata: str, name: str) -> tuple[str, ...]:
    """ONNX nodes inside a layer: from its metadata, or, where it has none, from its name (``a + b``)."""
    nodes = re.findall(r"\[ONNX Layer: (.*?)\]", metadata)
    return tuple(dict.fromkeys(nodes)) if nodes else tuple(name.split(" + "))
