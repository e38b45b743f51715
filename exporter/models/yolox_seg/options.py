"""``model.options`` of a YOLOX with a mask head."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from exporter.models.yolox.options import Options


class SegOptions(Options):
    """Those of a YOLOX, whose rows come raw, and:

    Attributes:
        mask: how pixels of the image get their labels, see `runtime.models.yolox_seg.mask`.
        mask_classes: names of the mask's classes, in the order of the head, where the training config does not say
            as many.
    """

    mask: Literal["awml", "autoware"] = "awml"
    mask_classes: tuple[str, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _rows_are_raw(self) -> SegOptions:
        if self.output != "raw":
            raise ValueError("output of a model with a mask is raw: Autoware's node takes five tensors for no mask")
        if self.image is not None:
            raise ValueError("image is for ONNX files made elsewhere, of which there are none with a mask")
        return self
