"""What a run computed in."""

from __future__ import annotations

from shared.runs import RunHeader


def precision_of(header: RunHeader, tensorrt_policy: str) -> str:
    """The precision policy of a run.

    TF32 counts for CUDA devices, since cuDNN's convolutions and ONNX Runtime's CUDA provider use it by default.

    Args:
        header: of the run; it may say so itself, in its details.
        tensorrt_policy: ``tensorrt.precision_policy`` of the config.
    """
    if "precision" in header.details:
        return str(header.details["precision"])
    if header.backend == "tensorrt":
        return tensorrt_policy
    return "fp32" if header.device == "cpu" else "fp32_tf32"
