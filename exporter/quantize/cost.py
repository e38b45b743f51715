"""Latency of a choice of INT8 layers on a GPU: an ESTIMATE, to rank choices by; only an engine tells the latency.

Roofline (S. Williams et al., "Roofline: an insightful visual performance model", 2009): a layer takes as long as its
arithmetic at the GPU's peak, or its traffic at the memory's bandwidth, whichever is longer. Real kernels reach a part
of either, and other operations, kernel launches and caches are left out: it is a lower bound. An INT8 layer fed in
floating point pays for a pass that quantizes its input; the output of a layer is INT8 when all layers that read it are.

Measured times of an engine's layers (``trt_builder inspect ENGINE --json``) take the place of the roofline where given.

Why ours: torch.utils.flop_counter counts operations and no bytes, knows no precisions, and no GPU's peaks; and no
profiler tells what a GPU that is not at hand would take.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from exporter.component import Component
from shared.errors import InputError, UsageError
from shared.json_reader import DATA_BYTES, read_json

BYTES = {"fp32": 4, "fp16": 2, "int8": 1}

Times = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Gpu:
    """Peaks of a GPU, without structured sparsity.

    Attributes:
        operations: per second, by precision: FP32 of its ordinary cores, FP16 and INT8 of its tensor cores.
        bandwidth: bytes per second of its memory.
    """

    operations: Mapping[str, float]
    bandwidth: float


# NVIDIA's data sheets: H200 and L4 Tensor Core GPU (tensor figures there with sparsity, halved here), A100 80 GB SXM,
# Jetson AGX Orin 64 GB (technical brief 1.2: GPU alone, 170 sparse INT8 TOPS; FP16 half of INT8, as on every Ampere).
GPUS: Mapping[str, Gpu] = {
    "h200": Gpu({"fp32": 67e12, "fp16": 989.5e12, "int8": 1979e12}, 4.8e12),
    "a100": Gpu({"fp32": 19.5e12, "fp16": 312e12, "int8": 624e12}, 2.039e12),
    "l4": Gpu({"fp32": 30.3e12, "fp16": 121e12, "int8": 242.5e12}, 300e9),
    "orin": Gpu({"fp32": 5.3e12, "fp16": 42.5e12, "int8": 85e12}, 204.8e9),
}


def check_gpu(name: str) -> None:
    """Raises UsageError for a GPU whose peaks are not known."""
    if name not in GPUS:
        raise UsageError(
            f"the peaks of GPU '{name}' are not known", where="--gpu", hint=f"there are: {', '.join(GPUS)}"
        )


@dataclass(frozen=True)
class LayerCost:
    """What a layer does for one frame.

    Attributes:
        name: of the layer in the model.
        macs: multiplications with addition.
        inputs, outputs, weights: numbers of elements.
        sources: the layers that its input comes from, through whatever lies between; empty where none does.
    """

    name: str
    macs: int
    inputs: int
    outputs: int
    weights: int
    sources: frozenset[str]


class _Origins(TorchFunctionMode):
    """Follows, through every operation, which layers a tensor was made from."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Any = WeakTensorKeyDictionary()  # tensor -> names of layers

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        made = list(_tensors(result))
        if made:
            origin = self.union([*args, *(kwargs or {}).values()])
            for tensor in made:
                self.of[tensor] = origin
        return result

    def union(self, values: Any) -> frozenset[str]:
        """The layers that tensors, however nested, were made from."""
        return frozenset().union(*(self.of.get(tensor, frozenset()) for tensor in _tensors(values)))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def trace_costs(layers: Mapping[str, nn.Module], run: Callable[[], Any]) -> list[LayerCost]:
    """What layers cost, in the order in which they run.

    Args:
        layers: Conv2d, ConvTranspose2d and Linear layers by name.
        run: runs the model on one frame.

    Returns:
        One entry per layer that ran; several calls of a layer (on several levels) are added up.
    """
    costs: dict[str, LayerCost] = {}
    with _Origins() as origins, _hooked(layers, origins, costs), torch.no_grad():
        run()
    return list(costs.values())


@contextmanager
def _hooked(layers: Mapping[str, nn.Module], origins: _Origins, costs: dict[str, LayerCost]) -> Iterator[None]:
    def note(name: str, module: Any, inputs: Any, output: Tensor) -> None:
        tensor, before = inputs[0], costs.get(name)
        # Every weight multiplies every output position of its channel; of a transposed convolution, every input's.
        positions = tensor.numel() if isinstance(module, nn.ConvTranspose2d) else output.numel()
        channels = module.weight.shape[0]
        macs = positions * module.weight.numel() // channels
        sources = origins.union(tensor)
        origins.of[output] = frozenset([name])
        costs[name] = LayerCost(
            name=name,
            macs=macs + (before.macs if before else 0),
            inputs=tensor.numel() + (before.inputs if before else 0),
            outputs=output.numel() + (before.outputs if before else 0),
            weights=module.weight.numel(),
            sources=sources | (before.sources if before else frozenset()),
        )

    handles = [
        module.register_forward_hook(lambda module, inputs, output, name=name: note(name, module, inputs, output))
        for name, module in layers.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def layer_ms(layer: LayerCost, precision: str, gpu: Gpu, output: str | None = None) -> float:
    """Roofline of one layer [ms].

    Args:
        layer: the layer.
        precision: of its arithmetic, input and weights.
        gpu: on what.
        output: precision of what it writes, where that is another.
    """
    arithmetic = 2 * layer.macs / gpu.operations[precision]
    traffic = (layer.inputs + layer.weights) * BYTES[precision] + layer.outputs * BYTES[output or precision]
    return 1e3 * max(arithmetic, traffic / gpu.bandwidth)


def latency_ms(
    layers: Sequence[LayerCost], int8: Collection[str], gpu: Gpu, *, others: str = "fp16", times: Times | None = None
) -> float:
    """Estimated latency of the layers [ms].

    Args:
        layers: all of them (`trace_costs`).
        int8: names of those in INT8.
        gpu: on what.
        others: precision of the others.
        times: measured milliseconds by layer and precision (`read_profiles`), taken where there are some.
    """
    readers: dict[str, list[str]] = {}
    for layer in layers:
        for source in layer.sources:
            readers.setdefault(source, []).append(layer.name)
    writes_int8 = {
        layer.name
        for layer in layers
        if layer.name in int8 and readers.get(layer.name) and all(name in int8 for name in readers[layer.name])
    }
    total, passes = 0.0, {}
    for layer in layers:
        precision = "int8" if layer.name in int8 else others
        output = "int8" if layer.name in writes_int8 else others
        total += _measured(layer, precision, gpu, times or {}) or layer_ms(layer, precision, gpu, output)
        if precision == "int8" and not (layer.sources and layer.sources <= writes_int8):
            # Layers that read the same tensor share the pass.
            key = (layer.sources, layer.inputs) if layer.sources else layer.name
            passes[key] = 1e3 * layer.inputs * (BYTES[others] + BYTES["int8"]) / gpu.bandwidth
    return total + sum(passes.values())


def _measured(layer: LayerCost, precision: str, gpu: Gpu, times: Times) -> float | None:
    """Measured time of a layer; where it was measured in another precision, scaled by the rooflines' ratio."""
    known = times.get(layer.name, {})
    if precision in known:
        return known[precision]
    for other, measured in known.items():
        if other in BYTES:
            return measured * layer_ms(layer, precision, gpu) / layer_ms(layer, other, gpu)
    return None


# -- measured times ---------------------------------------------------------------------------------------------------


def read_profiles(
    paths: Sequence[Path], components: Sequence[Component], layers: Mapping[str, nn.Module]
) -> dict[str, dict[str, float]]:
    """Measured times of layers from reports of engines.

    Args:
        paths: JSON of ``trt_builder inspect ENGINE --json``, for engines of one GPU; later ones win.
        components: the exported parts of the model that ``layers`` are of.
        layers: the model's layers by name.

    Returns:
        Milliseconds by layer and precision. An engine's layer that holds several of ours is shared by their weights.

    Raises:
        InputError: no report, one without times, or none of its layers is the model's.
    """
    owners = {id(module): name for name, module in layers.items()}
    by_path = {
        path: owners[id(module)]
        for component in components
        for path, module in component.module.named_modules()
        if id(module) in owners
    }
    measured: dict[str, dict[str, float]] = {}
    for path in paths:
        matched = False
        for time, precision, nodes in _timed_layers(path):
            names = list(dict.fromkeys(name for node in nodes for name in _layers_at(module_path(node), by_path)))
            weights = {name: layers[name].get_parameter("weight").numel() for name in names}
            for name, weight in weights.items():
                entry = measured.setdefault(name, {})
                entry[precision] = time * weight / sum(weights.values())
                matched = True
        if not matched:
            raise InputError(
                "none of its layers is a layer of the model", where=str(path),
                hint="it takes engines of this model, exported with export.exporter: torchscript",
            )  # fmt: skip
    return measured


def _timed_layers(path: Path) -> list[tuple[float, str, list[str]]]:
    """(milliseconds, precision, ONNX nodes) of an engine's layers."""
    try:
        record = read_json(path, most_bytes=DATA_BYTES)
        times = record["times_ms"] or {}
        timed = [
            (float(times[layer["name"]]), str(layer["precision"]), list(layer["nodes"]))
            for layer in record["layers"]
            if layer["name"] in times
        ]
    except (ValueError, KeyError, TypeError, OverflowError, AttributeError) as error:
        raise InputError(
            f"is no report of an engine ({type(error).__name__}: {error})", where=str(path),
            hint="write one with: trt_builder inspect ENGINE --json",
        ) from error  # fmt: skip
    if not timed:
        raise InputError(
            "has no times of layers", where=str(path), hint="engines are timed where they are built on a GPU"
        )
    return timed


def _layers_at(place: str, by_path: Mapping[str, str]) -> list[str]:
    """The layer at a path, which lacks the outer modules that the component does not call as such; none or one."""
    matches = {name for path, name in by_path.items() if path == place or path.endswith(f".{place}")}
    return list(matches) if place and len(matches) == 1 else []


def module_path(node: str) -> str:
    """The module that an ONNX node of PyTorch's torchscript exporter belongs to.

    ``/backbone/blocks.0/blocks.0.3/Conv`` is of ``backbone.blocks.0.3``: in a list or sequence each scope repeats the
    names from the last attribute on.
    """
    path: list[str] = []
    for scope in node.strip("/").split("/")[:-1]:
        parts = scope.split(".")
        repeated = len(parts) - 1
        path = path[: len(path) - repeated] if repeated and path[-repeated:] == parts[:-1] else path
        path += parts
    return ".".join(path)
