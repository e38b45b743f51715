"""Quantizers switched on and off, and listed: those of nvidia-modelopt and the fixed ones alike."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from torch import nn

from exporter.quantize.frozen import QMAX, FixedQuantizer


def _quantizers(module: nn.Module) -> dict[str, Any]:
    """FixedQuantizer, and modelopt's TensorQuantizer where a layer uses it (its output's is never used here)."""
    return {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, FixedQuantizer)
        or (name.endswith(("input_quantizer", "weight_quantizer")) and type(part).__name__ == "TensorQuantizer")
    }


def _is_on(quantizer: Any) -> bool:
    return bool(quantizer.enabled if isinstance(quantizer, FixedQuantizer) else quantizer.is_enabled)


def _switch(quantizer: Any, on: bool) -> None:
    if isinstance(quantizer, FixedQuantizer):
        quantizer.enabled = on
    else:
        (quantizer.enable if on else quantizer.disable)()


class _Switch:
    """Switches all quantizers in a module: ``apply()`` for good, ``with`` for the block."""

    on: bool

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._before: dict[str, bool] = {}

    def apply(self) -> None:
        """Switch them."""
        for quantizer in _quantizers(self._module).values():
            _switch(quantizer, self.on)

    def __enter__(self) -> None:
        self._before = {name: _is_on(quantizer) for name, quantizer in _quantizers(self._module).items()}
        self.apply()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for name, quantizer in _quantizers(self._module).items():
            _switch(quantizer, self._before[name])


class disable_quantization(_Switch):  # noqa: N801 - the original's name
    """Let a module compute in float: ``disable_quantization(module).apply()``, or in a ``with`` block."""

    on = False


class enable_quantization(_Switch):  # noqa: N801 - the original's name
    """Let a module's quantizers work: ``enable_quantization(module).apply()``, or in a ``with`` block."""

    on = True


def quantizer_status(model: nn.Module) -> list[tuple[str, bool, float | None]]:
    """Name of every quantizer, whether it works, and the largest range it has (None: not calibrated)."""
    rows = []
    for name, quantizer in _quantizers(model).items():
        if isinstance(quantizer, FixedQuantizer):
            largest: float | None = float(quantizer.scale.max()) * QMAX
        else:
            largest = None if quantizer.amax is None else float(quantizer.amax.max())
        rows.append((name, _is_on(quantizer), largest))
    return rows


def print_quantizer_status(model: nn.Module) -> None:
    """Print `quantizer_status`, a line each."""
    for name, on, largest in quantizer_status(model):
        extent = "not calibrated" if largest is None else f"range {largest:.5g}"
        print(f"{name}  {'on' if on else 'off'}  {extent}")  # noqa: T201 - what it is for
