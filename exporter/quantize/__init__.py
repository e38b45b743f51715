"""INT8 quantization: calibration, fine-tuning, sensitivity, search (docs/quantization.md).

The Python API, by the names that users of AWML's deployment framework know. Loaded at first use: PyTorch and
nvidia-modelopt take seconds.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "CalibrationManager": "calibrate",
    "QATHook": "hook",
    "QuantConv2d": "frozen",
    "QuantConvTranspose2d": "frozen",
    "QuantLinear": "frozen",
    "SkipQuantizer": "residual",
    "build_sensitivity_profile": "sensitivity",
    "disable_quantization": "switches",
    "enable_quantization": "switches",
    "freeze": "frozen",
    "fuse_model_bn": "fusion",
    "get_sensitive_layers": "sensitivity",
    "load_ptq_model": "checkpoint",
    "open_session": "session",
    "print_quantizer_status": "switches",
    "quant_conv_module": "calibrate",
    "quant_linear_module": "calibrate",
    "quant_model": "calibrate",
    "quantize_ptq": "ptq",
    "save_ptq_model": "checkpoint",
    "set_quantized": "frozen",
}
# The quantized layers are called after what was done to them.
_NAMES = {
    "QuantConv2d": "FrozenConv2d", "QuantConvTranspose2d": "FrozenConvTranspose2d", "QuantLinear": "FrozenLinear",
}  # fmt: skip

__all__ = sorted(_HOMES)  # noqa: PLE0605 - filled by __getattr__


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), _NAMES.get(name, name))
