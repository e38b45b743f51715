"""The section ``gates``: what `evaluator regress` calls a regression."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from shared.config.section import Section

Tolerance = Annotated[float, Field(ge=0, allow_inf_nan=False)] | None


class Gates(Section):
    """How much worse than its baseline a model may be; what is no certain change never counts. null: any amount."""

    metric: Tolerance = Field(default=0.0, description="Points (hundredths) that a metric may lose.")
    latency: Tolerance = Field(default=0.0, description="Percent that the latency of a stage or request may rise.")
    size: Tolerance = Field(default=0.0, description="Percent that an engine may grow.")
    build_time: Tolerance = Field(default=None, description="Percent that a build may take longer.")
    memory: Tolerance = Field(default=0.0, description="Percent that memory may grow.")
    precision: Tolerance = Field(
        default=0.0, description="Percent of the matrix layers, or layers, that may run otherwise than before."
    )
    verification: Tolerance = Field(
        default=0.0, description="How much a statistic of the verification may get worse, in its unit."
    )
