"""The graph: nodes in order, where it can be cut, and any window of it as a model of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shared import onnx_graph
from shared.errors import InputError, ModelLoadError
from shared.lazy import lazy_import
from shared.onnx_graph import names_read, tensor_types

onnx = lazy_import("onnx")

Arrays = Mapping[str, npt.NDArray[Any]]


class Graph:
    """An ONNX model, its nodes in an order in which they can run, constants aside.

    Attributes:
        model: the model.
        nodes: its nodes but for ``Constant``, which belong to whoever uses them.
        inputs, outputs: names of the graph's tensors.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        graph = model.graph
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._constants = {node.output[0]: node for node in graph.node if node.op_type == "Constant"}
        # The checker demands that nodes come in such an order.
        self.nodes = [node for node in graph.node if node.op_type != "Constant"]
        self.inputs = [value.name for value in onnx_graph.inputs(model)]
        self.outputs = [value.name for value in graph.output]
        self._types = tensor_types(model)

    @staticmethod
    def load(path: Path) -> Graph:
        """Read a model.

        Raises:
            ModelLoadError: not a valid ONNX file.
        """
        try:
            model = onnx.load(str(path))
            onnx.checker.check_model(model)
        except (OSError, ValueError, onnx.checker.ValidationError, _decode_error()) as error:
            raise ModelLoadError(f"no valid ONNX model: {str(error).splitlines()[0]}", where=str(path)) from error
        return Graph(model)

    def tensors(self) -> set[str]:
        """Names of everything that is computed or given."""
        return {name for node in self.nodes for name in node.output if name} | set(self.inputs)

    def groups(self, known: Iterable[str]) -> list[range]:
        """The nodes, grouped so that between groups only tensors of ``known`` pass: positions in ``nodes``.

        Args:
            known: tensors that the reference has too; all of them where both run the same graph.

        Raises:
            InputError: the graph's own inputs or outputs are not among them.
        """
        names = set(known)
        missing = sorted({*self.inputs, *self.outputs} - names)
        if missing:
            raise InputError(
                f"the reference graph has no tensor '{missing[0]}'",
                where="bisect",
                hint="compare two exports of the same model",
            )
        last_use: dict[str, int] = dict.fromkeys(self.outputs, len(self.nodes))
        for position, node in enumerate(self.nodes):
            for name in names_read(node):
                last_use[name] = max(last_use.get(name, -1), position)
        found, start = [], 0
        open_until = -1
        for position, node in enumerate(self.nodes):
            for name in node.output:
                if name not in names:
                    open_until = max(open_until, last_use.get(name, -1))
            # An unknown tensor must not leave its group.
            if position >= open_until:
                found.append(range(start, position + 1))
                start = position + 1
        return found

    def boundary(self, first: int, last: int) -> tuple[list[str], list[str]]:
        """What enters and what leaves the nodes ``[first, last)``: names, each once, in order."""
        inside = self.nodes[first:last]
        made = {name for node in inside for name in node.output if name}
        given = set(self._weights) | set(self._constants)
        entering = [name for node in inside for name in names_read(node) if name not in made and name not in given]
        outside = [*self.nodes[:first], *self.nodes[last:]]
        wanted = {name for node in outside for name in names_read(node)} | set(self.outputs)
        leaving = [name for node in inside for name in node.output if name in wanted]
        return list(dict.fromkeys(entering)), list(dict.fromkeys(leaving))

    def window(self, first: int, last: int, inputs: Sequence[Arrays], outputs: Sequence[str]) -> Any:
        """The nodes ``[first, last)`` as a model.

        Args:
            first, last: positions.
            inputs: what will enter, per sample; gives shapes, and types where the graph does not tell.
            outputs: names of what leaves.
        """
        return self._model(self.nodes[first:last], inputs, outputs)

    def up_to(self, names: Sequence[str], inputs: Sequence[Arrays]) -> Any:
        """The part of the graph that computes the tensors ``names``, as a model.

        Args:
            names: of computed tensors.
            inputs: of the graph, per sample.
        """
        wanted = set(names)
        needed = []
        for node in reversed(self.nodes):
            if wanted & set(node.output):
                wanted |= set(names_read(node))
                needed.append(node)
        given = [{name: sample[name] for name in self.inputs if name in wanted} for sample in inputs]
        return self._model(needed[::-1], given, names)

    def _model(self, nodes: Sequence[Any], inputs: Sequence[Arrays], outputs: Sequence[str]) -> Any:
        used = {name for node in nodes for name in names_read(node)}
        graph = onnx.helper.make_graph(
            [*(self._constants[name] for name in self._constants if name in used), *nodes],
            "window",
            [self._value(name, [sample[name] for sample in inputs]) for name in inputs[0]],
            [self._typed(name) for name in outputs],
            [self._weights[name] for name in self._weights if name in used],
        )
        model = onnx.helper.make_model(graph, opset_imports=self.model.opset_import, functions=self.model.functions)
        model.ir_version = self.model.ir_version
        return model

    def element_type(self, name: str) -> npt.DTypeLike | None:
        """NumPy type of a tensor, None where the graph does not tell."""
        kind = self._types.get(name)
        return onnx.helper.tensor_dtype_to_np_dtype(kind) if kind else None

    def _typed(self, name: str) -> Any:
        """An output; where its type is not known, whoever loads the model works it out."""
        kind = self._types.get(name)
        return onnx.helper.make_tensor_value_info(name, kind, None) if kind else onnx.ValueInfoProto(name=name)

    def _value(self, name: str, arrays: Sequence[npt.NDArray[Any]]) -> Any:
        """A tensor's name, type, and shape; axes whose size differs between samples are dynamic."""
        shapes = {array.shape for array in arrays}
        shape = [
            next(iter(sizes)) if len(sizes) == 1 else f"{name}_{axis}"
            for axis, sizes in enumerate(map(set, zip(*shapes, strict=True)))
        ]
        kind = self._types.get(name) or onnx.helper.np_dtype_to_tensor_dtype(arrays[0].dtype)
        return onnx.helper.make_tensor_value_info(name, kind, shape)


def node_title(node: Any) -> str:
    """A node's name; of one without, its type and first output."""
    return str(node.name or f"{node.op_type}:{node.output[0]}")


def _decode_error() -> type[Exception]:
    from google.protobuf import message

    error: type[Exception] = message.DecodeError
    return error


def as_types_of(graph: Graph, arrays: Arrays) -> dict[str, npt.NDArray[Any]]:
    """The arrays in the types that ``graph`` gives these tensors, C-contiguous."""
    converted = {}
    for name, array in arrays.items():
        dtype = graph.element_type(name)
        # Not np.ascontiguousarray: that makes vectors of scalars.
        converted[name] = np.asarray(array, dtype, order="C")
    return converted
