"""The one component of a YOLOX with a mask head: the detector's, with a tensor more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from exporter.component import Component
from exporter.models.yolox import components as yolox
from exporter.models.yolox.framework import ModelInput
from exporter.models.yolox_seg.graph import RowsAndMask
from exporter.models.yolox_seg.options import SegOptions
from shared.spec import TensorSpec

MASK = "mask"


def components(model: Any, model_input: ModelInput, options: SegOptions) -> list[Component]:
    """The network, with the image of one sample.

    Args:
        model: a `YOLOXMultiTask`.
        model_input: the sample.
        options: see `SegOptions`.
    """
    return [network(model, model_input.normalized(model), options)]


def network(model: Any, images: Tensor, options: SegOptions) -> Component:
    """The one component: ``images`` to ``output`` and ``mask``, in the order in which Autoware's node takes them.

    Args:
        model: a `YOLOXMultiTask`.
        images: (1, 3, H, W) float32, to trace and check with.
        options: see `SegOptions`.
    """
    detector = yolox.network(model, images, options)
    batch = detector.inputs[0].shape[0]
    mask = TensorSpec(name=MASK, dtype="float32", shape=[batch, model.mask_head.num_classes, *images.shape[2:]])
    module = RowsAndMask(model, options.relu6_to_relu).eval()
    return replace(detector, module=module, outputs=(*detector.outputs, mask))
