"""What `exporter inspect` needs to know of YOLOX with a mask head, see `exporter.inspection`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from exporter.component import Component
from exporter.models.yolox_seg.components import network
from exporter.models.yolox_seg.options import SegOptions

MODEL_TYPES = ("YOLOXMultiTask",)
AUTOWARE_OPTIONS: Mapping[str, Any] = {}


def components(model: Any, parameters: Mapping[str, Any], options: SegOptions) -> list[Component]:
    """See `exporter.inspection.Inspectable`."""
    image = parameters["image"]
    return [network(model, torch.zeros(1).expand(1, 3, image["height"], image["width"]), options)]
