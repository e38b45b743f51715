"""What flows through a module of the framework while it runs as a whole."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Call:
    """Inputs and output of one call of a module."""

    inputs: tuple[Any, ...]
    output: Any


@contextlib.contextmanager
def recorded_calls(module: nn.Module) -> Iterator[list[Call]]:
    """The module's calls inside the block; outputs are copies, since decoding changes some in place."""
    calls: list[Call] = []
    hook = module.register_forward_hook(lambda _, inputs, output: calls.append(Call(inputs, _copied(output))))
    try:
        yield calls
    finally:
        hook.remove()


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {name: _copied(item) for name, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, (list, tuple)) else value
