"""Batch norms folded into the layers before them: the weights that are quantized are those that are multiplied."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from exporter.artifacts.checks import ROUNDING_MARGIN, TOLERANCE, relative
from exporter.quantize.frozen import FloatLayer, replace
from shared.errors import ExportError

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


class FoldedBatchNorm(nn.Identity):
    """Where a batch norm was.

    Args:
        layer: name of the layer that it was folded into.
    """

    def __init__(self, layer: str) -> None:
        super().__init__()
        self.layer = layer


def fuse_model_bn(model: nn.Module, run: Callable[[], Any]) -> list[tuple[str, str]]:
    """Fold every batch norm whose input is the output of a Conv2d, ConvTranspose2d or Linear into that layer, in place.

    Args:
        model: in evaluation mode.
        run: runs the model once on real data and returns what it gives: tensors, arrays, or containers of such.

    Returns:
        (layer, batch norm) names.

    Raises:
        ExportError: the outputs differ after it, by more than rounding.
    """
    pairs = _find_pairs(model, run)
    before = _values(run())
    fold(model, pairs)
    difference = _difference(before, _values(run()))
    if not difference <= TOLERANCE and not difference <= ROUNDING_MARGIN * _rounding(model, run):
        raise ExportError(
            f"outputs differ by {difference:.3g} of their largest value after batch norms were folded into "
            f"{len(pairs)} layers",
            hint="set quantization.fusion.fuse_bn: false, and report the model",
        )
    return pairs


def fold(model: nn.Module, pairs: Iterable[Sequence[str]]) -> None:
    """Fold batch norms into layers, in place.

    Args:
        model: in evaluation mode.
        pairs: (layer, batch norm) names.

    Raises:
        ExportError: the model has no such pair.
    """
    modules = dict(model.named_modules())
    for layer_name, norm_name in pairs:
        layer, norm = modules.get(layer_name), modules.get(norm_name)
        if not isinstance(layer, FloatLayer) or not isinstance(norm, _NORMS):
            raise ExportError(
                f"there is no batch norm {norm_name} to fold into it", where=layer_name,
                hint="this is another model's checkpoint",
            )  # fmt: skip
        mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        gain = torch.ones_like(mean) if norm.weight is None else norm.weight
        shift = torch.zeros_like(mean) if norm.bias is None else norm.bias
        # In float64, so that the only rounding is that of the result.
        values: Any = (mean.double(), variance.double(), norm.eps, gain.double(), shift.double())
        bias = None if layer.bias is None else layer.bias.double()
        if isinstance(layer, nn.Linear):
            weight, bias = fuse_linear_bn_weights(layer.weight.double(), cast(Any, bias), *values)
        else:
            transposed = isinstance(layer, nn.ConvTranspose2d)
            weight, bias = cast(Any, fuse_conv_bn_weights)(layer.weight.double(), bias, *values, transposed)
        layer.weight = nn.Parameter(weight.to(layer.weight.dtype), requires_grad=layer.weight.requires_grad)
        layer.bias = nn.Parameter(bias.to(layer.weight.dtype), requires_grad=layer.weight.requires_grad)
        replace(model, norm, FoldedBatchNorm(layer_name))


def fused_pairs(model: nn.Module) -> list[tuple[str, str]]:
    """(layer, batch norm) names of what was folded."""
    return [(module.layer, name) for name, module in model.named_modules() if isinstance(module, FoldedBatchNorm)]


@dataclass(frozen=True)
class _Output:
    layer: str
    value: Tensor  # kept, so that nothing else gets its memory during the run
    version: int


def _find_pairs(model: nn.Module, run: Callable[[], Any]) -> list[tuple[str, str]]:
    """Which batch norm always gets the untouched output of which one layer, and no other batch norm does."""
    outputs: dict[int, _Output] = {}
    sources: dict[str, set[str | None]] = {}
    calls: dict[str, int] = {}

    def after_layer(name: str, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        calls[name] = calls.get(name, 0) + 1
        outputs[output.untyped_storage().data_ptr()] = _Output(name, output, output._version)

    def before_norm(name: str, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls[name] = calls.get(name, 0) + 1
        made = outputs.get(inputs[0].untyped_storage().data_ptr())
        sources.setdefault(name, set()).add(made.layer if made and _same(made, inputs[0], layers[made.layer]) else None)

    layers = {name: module for name, module in model.named_modules() if _can_take(module)}
    handles = [
        *(module.register_forward_hook(partial(after_layer, name)) for name, module in layers.items()),
        *(
            module.register_forward_pre_hook(partial(before_norm, name))
            for name, module in model.named_modules()
            if isinstance(module, _NORMS) and module.running_mean is not None and not module.training
        ),
    ]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    single = [(next(iter(made)), norm) for norm, made in sources.items() if len(made) == 1]
    followers: dict[str | None, int] = {}
    for layer, _ in single:
        followers[layer] = followers.get(layer, 0) + 1
    return [
        (layer, norm)
        for layer, norm in single
        if layer is not None and followers[layer] == 1 and calls[layer] == calls[norm]
    ]


def _can_take(module: nn.Module) -> bool:
    # The channels of a transposed convolution with groups are not an axis of its weights.
    return isinstance(module, FloatLayer) and not (isinstance(module, nn.ConvTranspose2d) and module.groups > 1)


def _same(made: _Output, value: Tensor, layer: nn.Module) -> bool:
    """Whether a batch norm's input holds the layer's output, unchanged, with the channels on axis 1 (a Linear's are
    last, and moved there by a view)."""
    axis = made.value.dim() - 1 if isinstance(layer, nn.Linear) else 1
    return (
        value.numel() == made.value.numel()
        and value._version == made.version
        and value.dim() > 1
        and (value.shape[1], value.stride(1)) == (made.value.shape[axis], made.value.stride(axis))
    )


def _values(result: Any) -> list[np.ndarray[Any, Any]]:
    """The floating point arrays in what a model gives."""
    if isinstance(result, Tensor):
        result = result.detach().cpu().numpy()
    if isinstance(result, np.ndarray):
        return [result.copy()] if result.dtype.kind == "f" else []
    if isinstance(result, Mapping):
        return _values(list(result.values()))
    return [array for item in result for array in _values(item)] if isinstance(result, (list, tuple)) else []


def _difference(first: list[np.ndarray[Any, Any]], second: list[np.ndarray[Any, Any]]) -> float:
    """Largest difference, relative to the largest value of each array; infinite where shapes differ."""
    if [array.shape for array in first] != [array.shape for array in second]:
        return float("inf")
    return max((relative(b, a) for a, b in zip(first, second, strict=True)), default=0.0)


def _rounding(model: nn.Module, run: Callable[[], Any]) -> float:
    """How far outputs move when every weight moves by one rounding error of its type."""
    before = _values(run())
    generator = torch.Generator().manual_seed(0)
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for value in model.parameters():
            signs = torch.randint(0, 2, value.shape, generator=generator).to(value) * 2 - 1
            value.mul_(1 + signs * torch.finfo(value.dtype).eps / 2)
        moved = _difference(before, _values(run()))
    model.load_state_dict(kept)
    return moved
