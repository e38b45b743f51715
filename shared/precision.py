"""The precision that a run computed in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.runs import RunHeader

_SHOWN = {"explicit_int8": "INT8", "fp32_tf32": "FP32, TF32", "auto": "auto", "strongly_typed": "strongly typed"}


def precision_of(header: RunHeader, tensorrt_policy: str, *, quantized: bool) -> str:
    """The precision policy of a run.

    TF32 is assumed on CUDA devices, since cuDNN's convolutions and ONNX Runtime's CUDA provider use it by default. A
    quantized model rounds to int8 wherever it runs: two backends that are one float32 rounding apart round some values
    to neighboring steps.

    Args:
        header: of the run; it may say so itself, in its details.
        tensorrt_policy: ``tensorrt.precision_policy`` of the config.
        quantized: ``quantization.enabled`` of the config.
    """
    if "precision" in header.details:
        return str(header.details["precision"])
    if quantized:
        return "int8"
    if header.backend == "tensorrt":
        return tensorrt_policy
    return "fp32" if header.device == "cpu" else "fp32_tf32"


def precision_in(header: RunHeader, config: Mapping[str, Any]) -> str:
    """`precision_of` a run, by the resolved config of its workspace."""
    return precision_of(
        header,
        str(config.get("tensorrt", {}).get("precision_policy", "auto")),
        quantized=bool(config.get("quantization", {}).get("enabled", False)),
    )


def shown(precision: str) -> str:
    """A precision policy as people write it: ``INT8``."""
    return _SHOWN.get(precision, precision.upper())
