"""Quantized layers with fixed scales: what calibration and fine-tuning end in, and what is exported.

The calibrated model of nvidia-modelopt computes its scales from tensors as it runs, which torch.export can't follow.
Here they are constants: int8, symmetric (zero point 0), one scale a tensor or one a channel,

    q = clamp(round_half_even(x / scale), -128, 127),  result = q * scale

as ONNX defines QuantizeLinear and DequantizeLinear. A frozen model loads and runs without modelopt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from shared.errors import ConfigError, ExportError

QMIN, QMAX = -128, 127
# Below this a range counts as empty (a dead channel): scale 1 turns its values into zeros.
_EMPTY_RANGE = 2.0**-24

INPUT_SCALE, WEIGHT_SCALE = ".input_quantizer.scale", ".weight_quantizer.scale"

FloatLayer = nn.Conv2d | nn.ConvTranspose2d | nn.Linear


class FixedQuantizer(nn.Module):
    """Rounds float values to int8 steps and back.

    Args:
        scale: float32, () for one scale, (C,) for one a channel of ``axis``.
        axis: the axis of the channels; None: one scale.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, scale: Tensor, axis: int | None) -> None:
        super().__init__()
        self.register_buffer("scale", scale.detach().float().clone())
        self.register_buffer("zero_point", torch.zeros(scale.shape, dtype=torch.int32), persistent=False)
        self.axis = axis
        self.enabled = True
        self._constant = float(scale) if axis is None else 1.0

    def forward(self, values: Tensor) -> Tensor:
        """The values as int8 would hold them, in their own type and shape."""
        if not self.enabled:
            return values
        if torch.compiler.is_exporting():
            # PyTorch's own operator has no shape function, so torch.export refuses it.
            return self._as_onnx(values) if torch.onnx.is_in_onnx_export() else self._plain(values)
        if values.dtype in (torch.float16, torch.bfloat16):
            # Training in mixed precision: only PyTorch's own operator passes gradients through.
            return self.forward(values.float()).to(values.dtype)
        if values.dtype != torch.float32:
            return self._plain(values)
        if self.axis is None:
            return torch.fake_quantize_per_tensor_affine(values, self._constant, 0, QMIN, QMAX)
        return torch.fake_quantize_per_channel_affine(values, self.scale, self.zero_point, self.axis, QMIN, QMAX)

    def _scales(self, values: Tensor) -> Tensor:
        """The scales, shaped to multiply ``values`` with."""
        if self.axis is None:
            return self.scale
        return self.scale.reshape([-1 if axis == self.axis else 1 for axis in range(values.dim())])

    def _plain(self, values: Tensor) -> Tensor:
        scales = self._scales(values)
        return torch.clamp(torch.round(values * (1.0 / scales)), QMIN, QMAX) * scales

    def _as_onnx(self, values: Tensor) -> Tensor:
        attributes: dict[str, Any] = {} if self.axis is None else {"axis": self.axis}
        zero_point = self.zero_point.to(torch.int8)
        quanta = torch.onnx.ops.symbolic(
            "QuantizeLinear", (values, self.scale, zero_point), attributes, dtype=torch.int8, shape=values.shape
        )
        return torch.onnx.ops.symbolic(
            "DequantizeLinear", (quanta, self.scale, zero_point), attributes, dtype=values.dtype, shape=values.shape
        )

    def set_scale(self, scale: Tensor) -> None:
        """Replace the scale by one of the same shape."""
        self.scale.copy_(scale)
        self._refresh()

    def _refresh(self) -> None:
        if self.axis is None:
            self._constant = float(self.scale)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._refresh()


class _Frozen(nn.Module):
    input_quantizer: FixedQuantizer
    weight_quantizer: FixedQuantizer


class FrozenConv2d(nn.Conv2d, _Frozen):
    """A Conv2d with quantized input and weights."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H', W')."""
        quantized = self._conv_forward(self.input_quantizer(input), self.weight_quantizer(self.weight), self.bias)
        return cast(Tensor, quantized)


class FrozenConvTranspose2d(nn.ConvTranspose2d, _Frozen):
    """A ConvTranspose2d with quantized input and weights."""

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        """(B, C, H, W) to (B, C', H', W'); ``output_size`` is not supported."""
        if output_size is not None:
            raise ExportError("a quantized ConvTranspose2d can't take output_size", hint="leave this layer in float")
        return functional.conv_transpose2d(
            self.input_quantizer(input), self.weight_quantizer(self.weight), self.bias, self.stride,
            cast("tuple[int, ...]", self.padding), self.output_padding, self.groups, self.dilation,
        )  # fmt: skip


class FrozenLinear(nn.Linear, _Frozen):
    """A Linear with quantized input and weights."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., F) to (..., F')."""
        return functional.linear(self.input_quantizer(input), self.weight_quantizer(self.weight), self.bias)


def frozen_layers(model: nn.Module) -> dict[str, Any]:
    """All frozen layers by name, those that `set_quantized` switched off too."""
    return {name: module for name, module in model.named_modules() if isinstance(module, _Frozen)}


def quantized_layers(model: nn.Module) -> list[str]:
    """Names of the frozen layers that quantize."""
    return [name for name, module in frozen_layers(model).items() if module.input_quantizer.enabled]


def set_quantized(model: nn.Module, names: Iterable[str]) -> None:
    """Let only these layers of a frozen model quantize, and compute the others in float.

    Raises:
        ConfigError: a name that is no frozen layer.
    """
    wanted, layers = set(names), frozen_layers(model)
    if unknown := sorted(wanted - set(layers)):
        raise ConfigError(f"{', '.join(unknown)} have no scales", hint="calibrate with these layers quantized")
    for name, module in layers.items():
        module.input_quantizer.enabled = module.weight_quantizer.enabled = name in wanted


def put_weights_on_grid(model: nn.Module) -> None:
    """Round the weights of quantized layers to the values that int8 holds, in place.

    The results stay the same, and no runtime can round them otherwise.
    """
    with torch.no_grad():
        for module in frozen_layers(model).values():
            module.weight.copy_(module.weight_quantizer(module.weight))


def freeze(model: nn.Module) -> None:
    """Replace modelopt's calibrated layers by frozen ones, in place; those it left disabled become plain layers again.

    Raises:
        ExportError: a layer was never calibrated.
    """
    for name, module in list(model.named_modules()):
        parts = dict(module.named_children())
        if not isinstance(module, FloatLayer) or isinstance(module, _Frozen) or "weight_quantizer" not in parts:
            continue
        inputs, weights = cast(Any, parts["input_quantizer"]), cast(Any, parts["weight_quantizer"])
        if not (inputs.is_enabled and weights.is_enabled):
            replace(model, module, plain_like(module))
            continue
        if inputs.amax is None or weights.amax is None:
            raise ExportError("has no calibrated range", where=name, hint="calibrate first")
        axis = None if weights.amax.numel() == 1 else 0
        replace(model, module, _frozen_like(module, scale_of(inputs.amax), scale_of(weights.amax), axis))


def freeze_from(model: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Replace the layers of a float model that have scales in a state dict by frozen ones with these scales, in place.

    Returns:
        Their names.

    Raises:
        ExportError: the model has no such layer, or of another kind.
    """
    modules = dict(model.named_modules())
    names = [key.removesuffix(INPUT_SCALE) for key in state if key.endswith(INPUT_SCALE)]
    for name in names:
        module = modules.get(name)
        if not isinstance(module, FloatLayer):
            raise ExportError(
                "is no layer that can be quantized", where=name, hint="this is another model's checkpoint"
            )
        weights = state[name + WEIGHT_SCALE]
        replace(model, module, _frozen_like(module, state[name + INPUT_SCALE], weights, 0 if weights.dim() else None))
    return names


def replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put ``new`` wherever the model holds ``old``."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child is old:
                setattr(parent, name, new)


def scale_of(amax: Tensor) -> Tensor:
    """Scale of a quantizer whose range ends at ``amax``; () or (C,) float32."""
    amax = amax.detach().float().reshape([-1] if amax.numel() > 1 else [])
    return torch.where(amax > _EMPTY_RANGE, amax / QMAX, torch.ones_like(amax))


def _frozen_like(module: FloatLayer, inputs: Tensor, weights: Tensor, axis: int | None) -> nn.Module:
    frozen = _like(module, FrozenConv2d, FrozenConvTranspose2d, FrozenLinear)
    frozen.input_quantizer = FixedQuantizer(inputs, None)
    frozen.weight_quantizer = FixedQuantizer(weights, axis)
    return frozen


def plain_like(module: FloatLayer) -> nn.Module:
    """PyTorch's own layer with the module's parameters."""
    return _like(module, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def _like(module: FloatLayer, conv: Any, transposed: Any, linear: Any) -> nn.Module:
    """A layer of one of three types that shares the module's parameters."""
    built: nn.Module
    if isinstance(module, nn.Linear):
        built = linear(module.in_features, module.out_features, module.bias is not None, device="meta")
    else:
        arguments: dict[str, Any] = {
            name: vars(module)[name]
            for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups",
                         "padding_mode")
        }  # fmt: skip
        arguments |= {"bias": module.bias is not None, "device": "meta"}
        if isinstance(module, nn.ConvTranspose2d):
            arguments["output_padding"] = module.output_padding
            built = transposed(**arguments)
        else:
            built = conv(**arguments)
    # Not module.weight: modelopt makes a property of it.
    for name, parameter in module.named_parameters(recurse=False):
        setattr(built, name, parameter)
    return built.train(module.training)
