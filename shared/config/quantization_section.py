"""Section ``quantization``: INT8 by calibration (PTQ) or fine-tuning (QAT)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shared.config.model_sections import Data
from shared.config.section import Count, Flag, Pattern, Section


class Calibration(Section):
    """How activation ranges are found."""

    num_batches: Count = Field(
        default=100, description="How many samples of the data set are used, spread evenly over it."
    )
    method: Literal["histogram", "max"] = Field(
        default="histogram", description="Collect histograms, or only the largest value seen."
    )
    amax_method: Literal["mse", "entropy", "percentile"] = Field(
        default="mse", description="With `histogram`: how a range is chosen from it."
    )
    percentile: Annotated[float, Field(gt=50, le=100)] = Field(
        default=99.99, description="With `percentile`: the share of an activation's values other than 0 in its range."
    )
    data: Data | None = Field(
        default=None,
        description="The samples, with the keys of the section `data`: different from those that are evaluated. If "
        "omitted: the section `data`, with a warning.",
    )


class Fusion(Section):
    """What is fused before quantization."""

    fuse_bn: Flag = Field(default=True, description="Fold batch normalization into the convolution before it.")


class Quantization(Section):
    """INT8 quantization of the PyTorch model, by `exporter quantize` (docs/quantization.md)."""

    enabled: Flag = Field(default=False, description="Whether the export takes the quantized model.")
    mode: Literal["ptq", "qat"] = Field(default="ptq", description="`ptq`: calibration only; `qat`: with fine-tuning.")
    calibration: Calibration = Field(default=Calibration(), description="How activation ranges are found.")
    fusion: Fusion = Field(default=Fusion(), description="What is fused first.")
    sensitive_layers: tuple[Pattern, ...] = Field(
        default=(),
        description="Layers that stay in floating point: names of layers or blocks, or regular expressions that match "
        "anywhere in a layer's name.",
    )
