"""How an engine takes its inputs: TensorRT is given the choice, and the engine says what it chose."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from trt_builder.compat import TensorRT

_IMAGE_RANK, _CHANNELS = 4, 1
# Channels of an image that lie side by side come in groups of so many.
_GROUP = 8


def free_inputs(tensorrt: TensorRT, network: Any, names: Collection[str]) -> None:
    """Let inputs come in FP16, and images with their channels side by side: those that a network reads in FP16.

    An engine that takes
    FP32 rows begins by converting them: of a bird's-eye-view image of 1020 x 1020 x 32 it reads 133 MB and writes 67.
    TensorRT times the kernels for each layout that is allowed, and takes the fastest.

    Args:
        tensorrt: a weakly typed one.
        network: the parsed network; changed.
        names: of these inputs.
    """
    trt = tensorrt.trt
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if tensor.name not in names or tensor.dtype != trt.DataType.FLOAT:
            continue
        tensor.dtype = trt.DataType.HALF
        layouts = [trt.TensorFormat.LINEAR]
        if len(tensor.shape) == _IMAGE_RANK and tensor.shape[_CHANNELS] > 0 and tensor.shape[_CHANNELS] % _GROUP == 0:
            layouts.append(trt.TensorFormat.HWC8)
        tensor.allowed_formats = sum(1 << int(layout) for layout in layouts)


def chosen(engine: Any) -> dict[str, dict[str, str]]:
    """Type and layout of an engine's inputs and outputs, by name."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return {
        name: {"type": engine.get_tensor_dtype(name).name, "layout": engine.get_tensor_format(name).name}
        for name in names
    }
