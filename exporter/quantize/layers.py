"""Which layers can be quantized, and which of them are left out by name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from torch import nn

from exporter.quantize.frozen import FloatLayer
from shared.errors import ConfigError

SKIP_KEY = "quantization.sensitive_layers"
_NEAR_MATCHES = 3
_PLAIN_NAME = re.compile(r"[\w.]+")
# The last projection of PyTorch's attention, which reads its weights and never calls it: it can have no range.
_NEVER_CALLED = nn.modules.linear.NonDynamicallyQuantizableLinear


def quantizable(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that can be quantized, Conv2d, ConvTranspose2d and Linear, by name, in the model's own order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, FloatLayer)}


def select(model: nn.Module, skip: Sequence[str], where: str = SKIP_KEY) -> list[str]:
    """Names of the layers that are quantized: all but the skipped ones, and out of `torch.nn.MultiheadAttention`.

    Args:
        model: the model.
        skip: names of layers or of blocks, which stand for all layers in them, or regular expressions that match
            anywhere in a layer's name.
        where: the key or option that they come from, for errors.

    Raises:
        ConfigError: a pattern matches nothing, or nothing is left.
    """
    layers, skipped = quantizable(model), set[str]()
    for pattern in skip:
        matched = matching(model, pattern)
        if not matched:
            names = list(dict.fromkeys(part for name in layers for part in _blocks_of(name)))
            near = difflib.get_close_matches(pattern, names, n=_NEAR_MATCHES, cutoff=0.5)
            raise ConfigError(
                f"'{pattern}' matches no layer",
                where=where,
                hint=f"did you mean {' or '.join(near)}?" if near else f"layers are {', '.join(list(layers)[:5])}, …",
            )
        skipped.update(matched)
    left = [name for name, layer in layers.items() if name not in skipped and not isinstance(layer, _NEVER_CALLED)]
    if not left:
        raise ConfigError("leaves no layer to quantize", where=where, hint="skip less")
    return left


def matching(model: nn.Module, pattern: str) -> list[str]:
    """Names of the layers that a name of a layer or block, or a regular expression, stands for."""
    layers = quantizable(model)
    if _PLAIN_NAME.fullmatch(pattern) and pattern in dict(model.named_modules()):
        return [name for name in layers if name == pattern or name.startswith(f"{pattern}.")]
    expression = re.compile(pattern)
    return [name for name in layers if expression.search(name)]


def _blocks_of(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
