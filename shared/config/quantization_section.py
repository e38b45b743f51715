"""Section ``quantization``: INT8 by calibration (PTQ) or fine-tuning (QAT)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shared.config.section import Count, Flag, Pattern, Section


class Calibration(Section):
    """How activation ranges are found."""

    num_batches: Count = Field(default=100, description="Batches of the data set that are looked at.")
    method: Literal["histogram", "max"] = Field(
        default="histogram", description="Collect histograms, or only the largest value seen."
    )
    amax_method: Literal["mse", "entropy", "percentile"] = Field(
        default="mse", description="With `histogram`: how a range is chosen from it."
    )


class Fusion(Section):
    """What is fused before quantisation."""

    fuse_bn: Flag = Field(default=True, description="Fold batch normalisation into the convolution before it.")


class Quantization(Section):
    """INT8 quantisation of the PyTorch model."""

    enabled: Flag = Field(default=False, description="Whether the model is quantised before it is exported.")
    mode: Literal["ptq", "qat"] = Field(default="ptq", description="`ptq`: calibration only; `qat`: with fine-tuning.")
    calibration: Calibration = Field(default=Calibration(), description="How activation ranges are found.")
    fusion: Fusion = Field(default=Fusion(), description="What is fused first.")
    sensitive_layers: tuple[Pattern, ...] = Field(
        default=(), description="Regular expressions on module names: these layers stay in floating point."
    )
