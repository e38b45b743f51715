"""Which layers can be quantized, and which of them are left out by name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from torch import nn

from exporter.quantize.frozen import FloatLayer
from shared.patterns import compiled, error_at

SKIP_KEY = "quantization.sensitive_layers"
SKIP_OPTION = "--skip"
_NEAR_MATCHES = 3
_PLAIN_NAME = re.compile(r"[\w.]+")
# The last projection of PyTorch's attention, which reads its weights and never calls it: it can have no range.
_NEVER_CALLED = nn.modules.linear.NonDynamicallyQuantizableLinear


def quantizable(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that can be quantized, Conv2d, ConvTranspose2d and Linear, by name, in the model's own order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, FloatLayer)}


def select(model: nn.Module, skip: Sequence[str], where: str = SKIP_KEY, *, also: Sequence[str] = ()) -> list[str]:
    """Names of the layers that are quantized: all but the skipped ones, and out of `torch.nn.MultiheadAttention`.

    Args:
        model: the model.
        skip: names of layers or of blocks, which stand for all layers in them, or regular expressions that match
            anywhere in a layer's name.
        where: the key that they come from, for errors.
        also: more of them, from the option ``--skip``.

    Raises:
        ConfigError: a pattern matches nothing or is no regular expression, or nothing is left.
        UsageError: the same of ``also``.
    """
    layers = quantizable(model)
    skipped = {name for pattern in skip for name in matching(model, pattern, where)}
    skipped |= {name for pattern in also for name in matching(model, pattern, SKIP_OPTION)}
    left = [name for name, layer in layers.items() if name not in skipped and not isinstance(layer, _NEVER_CALLED)]
    if not left:
        where = SKIP_OPTION if also else where
        raise error_at(where)("leaves no layer to quantize", where=where, hint="skip less")
    return left


def matching(model: nn.Module, pattern: str, where: str = SKIP_KEY) -> list[str]:
    """Names of the layers that a name of a layer or block, or a regular expression, stands for.

    Raises:
        ConfigError: none, or it is no regular expression.
        UsageError: the same, where ``where`` is an option.
    """
    layers = quantizable(model)
    if _PLAIN_NAME.fullmatch(pattern) and pattern in dict(model.named_modules()):
        matched = [name for name in layers if name == pattern or name.startswith(f"{pattern}.")]
    else:
        expression = compiled(pattern, where)
        matched = [name for name in layers if expression.search(name)]
    if not matched:
        names = list(dict.fromkeys(part for name in layers for part in _blocks_of(name)))
        near = difflib.get_close_matches(pattern, names, n=_NEAR_MATCHES, cutoff=0.5)
        raise error_at(where)(
            f"'{pattern}' matches no layer",
            where=where,
            hint=f"did you mean {' or '.join(near)}?" if near else f"layers are {', '.join(list(layers)[:5])}, …",
        )
    return matched


def _blocks_of(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
