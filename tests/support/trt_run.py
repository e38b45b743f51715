"""Runs an engine once, through the driver API alone, to compare its outputs with those of the ONNX graph."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from trt_builder import cuda
from trt_builder.messages import Messages, make_logger
from trt_builder.target import Target

_loggers: dict[str, Any] = {}


def logger(target: Target) -> Any:
    """The one logger that TensorRT takes per process."""
    return _loggers.setdefault(target.tensorrt.flavor, make_logger(target.tensorrt.trt, Messages(), layers=False))


def load(target: Target, path: Path) -> tuple[Any, Any]:
    """Runtime and engine of a plan file; the runtime must outlive the engine."""
    runtime = target.tensorrt.trt.Runtime(logger(target))
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    assert engine is not None
    return runtime, engine


def run(target: Target, engine: Any, inputs: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """The engine's outputs for ``inputs``."""
    trt = target.tensorrt.trt
    outputs = {}
    with cuda.primary_context() as gpu:
        context = engine.create_execution_context()
        for name, value in inputs.items():
            assert context.set_input_shape(name, value.shape)
        addresses = {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name)))
            shape = tuple(context.get_tensor_shape(name))
            address = gpu.allocate(int(np.prod(shape)) * dtype.itemsize)
            if name in inputs:
                gpu.upload(address, np.ascontiguousarray(inputs[name], dtype).tobytes())
            else:
                addresses[name] = (address, np.empty(shape, dtype))
            assert context.set_tensor_address(name, address)
        stream = gpu.stream()
        assert context.execute_async_v3(stream)
        gpu.synchronize(stream)
        for name, (address, array) in addresses.items():
            target_pointer = array.ctypes.data_as(ctypes.c_void_p)
            gpu.call("cuMemcpyDtoH_v2", target_pointer, ctypes.c_uint64(address), ctypes.c_size_t(array.nbytes))
            outputs[name] = array
        del context
    return outputs


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
