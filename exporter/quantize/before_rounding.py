"""What an export of a quantized model keeps besides the ONNX files, so that any of its layers can leave INT8 later.

``quantized/layers.json`` has, per component and layer of the model, the ONNX node that computes it and the initializer
that holds its weight; ``quantized/weights.npz`` the weights before they were rounded to int8's steps, by layer. With
both, `trt_builder sweep` and `tune` put layers back into floating point on machines without PyTorch.
``quantized/float_layers.json`` names the layers that could have been quantized and were not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from exporter.component import Component
from shared.arrays import write_arrays
from shared.lazy import lazy_import
from shared.onnx_graph import MATRIX_OPERATORS, node_name
from shared.stages import StageRun

if TYPE_CHECKING:
    from torch import nn

# What needs PyTorch is imported where it is used: that an export is up to date is said without.
onnx = lazy_import("onnx")

LAYERS, WEIGHTS, IN_FLOAT = "quantized/layers.json", "quantized/weights.npz", "quantized/float_layers.json"


class BeforeRounding:
    """The layers of a quantized model as an export goes on, component by component; of a float one there are none.

    Args:
        weights: of the layers that quantize, before rounding, by name of the layer.
    """

    def __init__(self, weights: Mapping[str, npt.NDArray[np.float32]]) -> None:
        self._weights = weights
        self._layers: dict[str, Mapping[str, Any]] = {}

    def add(self, path: Path, component: Component, model: nn.Module) -> None:
        """Note where the layers of ``model`` are in the ONNX file of a component."""
        if self._weights:
            self._layers[component.name] = layers_in(path, component, model)

    def keep(self, stage: StageRun, model: nn.Module) -> None:
        """Add the files to the export of ``model``."""
        if self._weights:
            from exporter.quantize.layers import quantizable

            stage.json_artifact(LAYERS, "quantized-layers", self._layers)
            in_float = [name for name in quantizable(model) if name not in self._weights]
            stage.json_artifact(IN_FLOAT, "quantized-layers", in_float)
            with stage.artifact(WEIGHTS, kind="quantized-layers") as path:
                write_arrays(path, self._weights)


def weights_before_rounding(model: nn.Module) -> dict[str, npt.NDArray[np.float32]]:
    """The weights of the layers that quantize, by name of the layer; copies."""
    from exporter.quantize.frozen import frozen_layers, quantized_layers

    layers = frozen_layers(model)
    return {name: layers[name].weight.detach().cpu().numpy().copy() for name in quantized_layers(model)}


def layers_in(path: Path, component: Component, model: nn.Module) -> dict[str, dict[str, str]]:
    """Where the quantized layers of a model are in the ONNX file of a component.

    Args:
        path: the file.
        component: a part of ``model``, whose modules are those of the model.
        model: the whole model, after `set_quantized` or loading.

    Returns:
        Per layer ``node``, the matrix node that computes it, and ``weight``, the initializer that it is read from. A
        layer whose weight a simplifier has renamed is left out.
    """
    from exporter.quantize.frozen import frozen_layers, quantized_layers

    layers = frozen_layers(model)
    names = {id(layers[name]): name for name in quantized_layers(model)}
    weights = {
        f"{path}.weight": names[id(module)] for path, module in component.module.named_modules() if id(module) in names
    }
    graph = onnx.load(str(path), load_external_data=False).graph
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = {}
    for tensor in graph.initializer:
        reading = readers.get(tensor.name, [])
        while len(reading) == 1 and reading[0].op_type not in MATRIX_OPERATORS:
            reading = readers.get(reading[0].output[0], [])
        if tensor.name in weights and len(reading) == 1:
            found[weights[tensor.name]] = {"node": node_name(reading[0]), "weight": tensor.name}
    return found
