"""The precision that a run computed in."""

from __future__ import annotations

from shared.runs import RunHeader


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
