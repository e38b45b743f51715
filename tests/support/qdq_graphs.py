"""Small graphs with Q/DQ nodes, put together by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Net:
    """A graph put together node by node; every method returns the name of the tensor that it makes.

    Args:
        channels: of the input, and of what convolutions make.
    """

    def __init__(self, channels: int = 4) -> None:
        self.channels = channels
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.random = np.random.default_rng(0)

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        """An initializer."""
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(self, operator: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Any node."""
        self.nodes.append(helper.make_node(operator, list(inputs), [f"{name}.out"], name=name, **attributes))
        return f"{name}.out"

    def pair(self, tensor: str, name: str, scale: Any = 0.05, axis: int | None = None) -> str:
        """Q and DQ after a tensor."""
        self.constant(f"{name}.scale", scale)
        self.constant(f"{name}.zero", np.zeros(np.shape(scale)), np.int8)
        attributes = {} if axis is None else {"axis": axis}
        quantized = self.node("QuantizeLinear", f"{name}.Q", tensor, f"{name}.scale", f"{name}.zero", **attributes)
        return self.node("DequantizeLinear", f"{name}.DQ", quantized, f"{name}.scale", f"{name}.zero", **attributes)

    def conv(self, tensor: str, name: str, *, quantized: bool = True, scale: float = 0.05) -> str:
        """A 3x3 convolution that keeps the number of channels, with Q/DQ at both inputs or at none."""
        # Sums as large as those over 4 channels: activations stay within their steps.
        largest = 0.5 * (4 / self.channels) ** 0.5
        shape = (self.channels, self.channels, 3, 3)
        weight = self.constant(f"{name}.weight", self.random.uniform(-largest, largest, shape))
        if quantized:
            tensor = self.pair(tensor, f"{name}/input", scale)
            weight = self.pair(weight, f"{name}/weight", np.full(self.channels, largest / 50), 0)
        # ONNX infers a kernel's shape from its weight; TensorRT 8.6 does not, where the weight comes from a DQ.
        return self.node("Conv", name, tensor, weight, kernel_shape=[3, 3], pads=[1, 1, 1, 1])

    def model(self) -> onnx.ModelProto:
        """The graph, from ``x`` (1, channels, 16, 16) to the tensors that nothing reads."""
        used = {name for node in self.nodes for name in node.input}
        last = [output for node in self.nodes for output in node.output if output not in used]
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, self.channels, 16, 16])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in last],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def residual_block(activation: str = "Relu") -> onnx.ModelProto:
    """Two convolutions, their input added to the result, and one after: as `exporter.quantize.residual` has it.

    32 channels, as real networks have them: what INT8 kernels read at a time.
    """
    net = Net(32)
    limits = (net.constant("low", 0.0), net.constant("high", 6.0)) if activation == "Clip" else ()
    inner = net.node(activation, "activation0", net.conv("x", "conv0"), *limits)
    added = net.node("Add", "add", net.conv(inner, "conv1"), net.pair("x", "skip"))
    net.conv(net.node(activation, "activation1", added, *limits), "conv2")
    return net.model()
