"""The programs of PyTorch that go with the graphs of `tests.support.trt_workspaces`: the same layers and weights."""

from __future__ import annotations

from typing import Any

import onnx
import torch
from onnx import helper, numpy_helper

from shared.workspace import Workspace


class GraphModule(torch.nn.Module):
    """An ONNX graph of the operators that those networks have, node by node."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        tensors = model.graph.initializer
        self.weights = torch.nn.ParameterList(
            torch.nn.Parameter(torch.tensor(numpy_helper.to_array(tensor)), requires_grad=False) for tensor in tensors
        )
        self._names = [tensor.name for tensor in tensors]
        self._nodes = [
            (
                node.op_type, list(node.input), node.output[0],
                {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute},
            )
            for node in model.graph.node
        ]  # fmt: skip
        self._input = model.graph.input[0].name
        self._outputs = [output.name for output in model.graph.output]

    def forward(self, tensor: Any) -> Any:
        values = {self._input: tensor, **dict(zip(self._names, self.weights, strict=True))}
        for operator, inputs, output, attributes in self._nodes:
            values[output] = _OPERATORS[operator](attributes, *(values[name] for name in inputs))
        answers = tuple(values[name] for name in self._outputs)
        return answers[0] if len(answers) == 1 else answers


_F = torch.nn.functional
_OPERATORS: dict[str, Any] = {
    "MatMul": lambda a, x, w: x @ w,
    "Add": lambda a, x, y: x + y,
    "Relu": lambda a, x: torch.relu(x),
    "ReduceMax": lambda a, x: x.amax(a["axes"], keepdim=bool(a["keepdims"])),
    "Conv": lambda a, x, w, b: _F.conv2d(x, w, b, a["strides"], a["pads"][:2]),
    "ConvTranspose": lambda a, x, w, b: _F.conv_transpose2d(x, w, b, a["strides"]),
    "Concat": lambda a, *x: torch.cat(x, a["axis"]),
}


def add_programs(ws: Workspace) -> None:
    """Export a program for every component of a workspace; the batch is one frame, other named axes stay dynamic."""
    components = []
    with ws.stage("programs", tool="test") as stage:
        for component in ws.spec().components:
            module = GraphModule(onnx.load(str(ws.path(component.onnx)))).eval()
            sizes = component.inputs[0].shape
            example = torch.zeros([_EXAMPLES.get(size, _EXAMPLE) if isinstance(size, str) else size for size in sizes])
            dynamic = {
                axis: torch.export.Dim.AUTO
                for axis, size in enumerate(sizes)
                if isinstance(size, str) and size not in _EXAMPLES
            }
            program = torch.export.export(module, (example,), dynamic_shapes=(dynamic,))
            path = f"pytorch/{component.name}.pt2"
            with stage.artifact(path, kind="program") as file:
                torch.export.save(program, file)
            components.append(component.model_copy(update={"program": path}))
        stage.spec(ws.spec().model_copy(update={"components": components}))


# Lengths of named axes while a program is traced: those that stay as they are, and of all others.
_EXAMPLES = {"batch_size": 1}
_EXAMPLE = 5
