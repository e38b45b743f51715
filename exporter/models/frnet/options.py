"""Options of an FRNet's deploy config."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from exporter.options import ModelOptions

Sizes = Annotated[tuple[int, int], Field(strict=False)]


class Options(ModelOptions):
    """``model.options`` of the deploy config.

    Attributes:
        form: inputs of the exported network. ``padded``: an index of each frustum's points, which every TensorRT can
            look up; ``scatter``: AWML's and Autoware's, with a reducing ScatterElements, for TensorRT 10 and later.
        output: name of the network's output; Autoware's node first called its probabilities ``seg_logit``.
        gaps: how points come into gaps of the range image: ``awml``, between the nearest points of two pixels, as the
            network is trained; ``autoware``, between the farthest and in half precision, as its node does it.
        points_per_frustum: ``padded``: of more points in a frustum the first so many count.
        sensor_position: of the lidar in the frame of the point files: x, y, z [m].
        num_points, num_frustums: rows that engines are tuned for, and at most; filled gaps included.
    """

    form: Literal["padded", "scatter"] = "padded"
    output: Literal["pred_probs", "seg_logit"] = "pred_probs"
    gaps: Literal["awml", "autoware"] = "awml"
    points_per_frustum: int = Field(default=32, ge=2)
    sensor_position: tuple[float, float, float] = Field(default=(0.0, 0.0, 0.0), strict=False)
    num_points: Sizes = (60000, 160000)
    num_frustums: Sizes = (30000, 60000)

    @model_validator(mode="after")
    def _sizes_are_in_order(self) -> Options:
        for name in ("num_points", "num_frustums"):
            typical, most = getattr(self, name)
            if not 2 <= typical <= most:
                raise ValueError(f"{name} is {typical}, {most}; first what is usual, then what is possible")
        return self
