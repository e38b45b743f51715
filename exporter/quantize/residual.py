"""Scales where tensors meet: at the Add of a skip connection, at a Concat, and wherever several layers read one tensor.

TensorRT takes an Add into the INT8 kernel of the convolution before it when the other side, the skip connection, is
int8 already. So the skip connection is quantized, and the convolution's own output is not:

    x ── Q/DQ ─┬─ conv1 ─ ReLU ─ Q/DQ ─ conv2 ─ Add ─ ReLU ─ Q/DQ ─ …
               └─────────── (downsample, Q/DQ) ──┘

It is quantized beside a last convolution in float, too: x is the sum of the block before, and an INT8 kernel that makes
a sum needs all its readers to take int8 (`shared.qdq_lint.float_sums`).

A tensor that several layers read is held once when they use one scale, and tensors that a Concat joins lie in one
tensor: their scale is the largest of those found. Nearest upsampling, maximum pooling and reshapes change no value, so
what is on either side of them counts as one tensor.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from exporter.quantize.frozen import QMAX, FixedQuantizer, frozen_layers

# Name of the quantizer inside `downsample` or `skip`; its scale is in the checkpoint.
_NAME = "skip_quantizer"
_KEY = f".{_NAME}.scale"
# Batches that the ranges behind `downsample` layers are taken from: their largest values are soon seen.
SHARING_BATCHES = 8
_RESNETS = ("mmdet.models.backbones.resnet", "mmpretrain.models.backbones.resnet")
# What gives out the values that it is given, in other places.
_SAME_VALUES = frozenset({"cat", "concat", "flatten", "max_pool2d", "reshape", "view"})


class SkipQuantizer(FixedQuantizer):
    """Quantizes a skip connection as long as a layer is quantized.

    Args:
        scale: float32, ().
        kernel: that frozen layer: the one that reads the same tensor, or behind a `downsample` that takes the Add in.
    """

    def __init__(self, scale: Tensor, kernel: nn.Module) -> None:
        super().__init__(scale, None)
        self._kernel = (kernel,)  # in a tuple: it is no part of this module

    def forward(self, values: Tensor) -> Tensor:
        """The values as int8 would hold them, or as they are."""
        kernel: Any = self._kernel[0]
        return super().forward(values) if kernel.input_quantizer.enabled else values


def share_scales(model: nn.Module, forward: Callable[[Any], Any], batches: Iterable[Any]) -> int:
    """Quantize the skip connections of a frozen model, and give tensors that meet one scale, in place.

    Args:
        model: after `exporter.quantize.frozen.freeze`, in evaluation mode.
        forward: runs the model on one batch.
        batches: the calibration samples; the first few are used.

    Returns:
        How many skip connections are quantized.
    """
    skips = [_place(block, torch.tensor(0.0)) for block in _blocks(model)]
    for skip in skips:
        skip.enabled = False
    ranges = dict.fromkeys(skips, torch.tensor(0.0))

    def widen(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, SkipQuantizer)
        ranges[module] = torch.maximum(ranges[module], inputs[0].detach().abs().amax().float().cpu())

    samples = islice(batches, SHARING_BATCHES)
    handles = [skip.register_forward_pre_hook(widen) for skip in skips]
    with torch.no_grad():
        with _watched(model) as watch:
            forward(next(samples))
        for batch in samples if skips else ():
            forward(batch)
    for handle in handles:
        handle.remove()
    for skip in skips:
        skip.enabled = True
        skip.set_scale(ranges[skip] / QMAX)
    for group in watch.groups:
        # A skip connection without a layer of its own is the tensor that its block's first layer reads.
        readers = [reader for reader in group.readers if reader not in ranges] or group.readers
        if readers:
            largest = torch.stack([reader.scale for reader in readers]).max()
            for reader in group.readers:
                reader.set_scale(largest)
    return len(skips)


def place_skips(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put quantizers where a checkpoint has scales of skip connections, in place.

    Args:
        model: with the frozen layers of the checkpoint.
        state: its state dict; scales of other models are left for the strict loading to refuse.
    """
    wanted = {key.removesuffix(_KEY): scale for key, scale in state.items() if key.endswith(_KEY)}
    for name, module in model.named_modules():
        block = _block(module)
        if block is not None and f"{name}.{block.skip}" in wanted:
            _place(block, wanted[f"{name}.{block.skip}"])


# -- skip connections -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ResidualBlock:
    """A residual block: which module its skip connection goes through, and the layers on either side.

    Attributes:
        module: the block.
        skip: name of the block's module that the skip connection goes through, or would: None, or Identity.
        first, last: the layers that read the block's input and make what the skip connection is added to.
    """

    module: nn.Module
    skip: str
    first: Any
    last: Any


@runtime_checkable
class HasResidualBlock(Protocol):
    """A module of our own that knows its skip connection; of other packages' modules, ResNet's blocks are known."""

    def residual_block(self) -> ResidualBlock | None:
        """The block; None where the module is configured without a skip connection."""


def _block(module: nn.Module) -> ResidualBlock | None:
    """A module as a residual block; None where it is none that is known."""
    if isinstance(module, HasResidualBlock):
        return module.residual_block()
    block: Any = module
    if isinstance(block, _types(_RESNETS, "BasicBlock")):
        return ResidualBlock(block, "downsample", block.conv1, block.conv2)
    if isinstance(block, _types(_RESNETS, "Bottleneck")):
        return ResidualBlock(block, "downsample", block.conv1, block.conv3)
    return None


def _types(modules: Sequence[str], name: str) -> Any:
    """The classes of a name in those of the modules that are imported: a model has no block of any other."""
    return tuple(getattr(sys.modules[module], name) for module in modules if module in sys.modules)


def _blocks(model: nn.Module) -> Iterator[ResidualBlock]:
    """The residual blocks whose skip connections are to be quantized."""
    frozen = set(frozen_layers(model).values())
    for module in list(model.modules()):
        block = _block(module)
        if block is not None and {block.first, _kernel(block)} <= frozen:
            yield block


def _kernel(block: ResidualBlock) -> Any:
    """The layer on which it depends whether the skip connection is quantized."""
    skip = getattr(block.module, block.skip)
    own = isinstance(skip, nn.Sequential) and any(not isinstance(child, SkipQuantizer) for child in skip)
    return block.last if own else block.first


def _place(block: ResidualBlock, scale: Tensor) -> SkipQuantizer:
    quantizer = SkipQuantizer(scale, _kernel(block))
    before = getattr(block.module, block.skip)
    if isinstance(before, nn.Sequential):
        before.add_module(_NAME, quantizer)
    else:  # None, or Identity
        setattr(block.module, block.skip, nn.Sequential())
        getattr(block.module, block.skip).add_module(_NAME, quantizer)
    return quantizer


# -- tensors that meet ------------------------------------------------------------------------------------------------


class _Group:
    """Quantizers that read one tensor, or parts of one."""

    def __init__(self) -> None:
        self.readers: list[FixedQuantizer] = []
        self._part_of: _Group | None = None

    def root(self) -> _Group:
        """The group that this one has become a part of."""
        return self if self._part_of is None else self._part_of.root()

    def join(self, other: _Group) -> None:
        """Become one with another group."""
        one, two = self.root(), other.root()
        if one is not two:
            one.readers += two.readers
            two._part_of = one


class _SameValues(TorchFunctionMode):
    """Notes which tensors have values in common."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[_Group] = []
        self._of = WeakTensorKeyDictionary()

    def group(self, tensor: Tensor) -> _Group:
        """The group of a tensor."""
        if tensor not in self._of:
            self.groups.append(_Group())
            self._of[tensor] = self.groups[-1]
        group: _Group = self._of[tensor]
        return group.root()

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the function."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        nearest = name == "interpolate" and kwargs.get("mode", "nearest") == "nearest"
        if (name in _SAME_VALUES or nearest) and args and isinstance(result, Tensor):
            for tensor in args[0] if isinstance(args[0], (list, tuple)) else [args[0]]:
                self.group(result).join(self.group(tensor))
        return result


@contextmanager
def _watched(model: nn.Module) -> Iterator[_SameValues]:
    """Note what each quantizer of activations reads, for one run of the model."""
    mode = _SameValues()

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, FixedQuantizer)
        mode.group(inputs[0]).readers.append(module)

    readers: list[nn.Module] = [layer.input_quantizer for layer in frozen_layers(model).values()]
    readers += [module for module in model.modules() if isinstance(module, SkipQuantizer)]
    handles = [reader.register_forward_pre_hook(note) for reader in readers]
    try:
        with mode:
            yield mode
    finally:
        for handle in handles:
            handle.remove()
