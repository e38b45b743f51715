"""What `exporter inspect` needs to know of YOLOX, see `exporter.inspection`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from exporter.component import Component
from exporter.models.yolox.components import network
from exporter.models.yolox.options import Options

MODEL_TYPES = ("YOLOX",)
AUTOWARE_OPTIONS: Mapping[str, Any] = {}


def components(model: Any, parameters: Mapping[str, Any], options: Options) -> list[Component]:
    """See `exporter.inspection.Inspectable`."""
    image = parameters["image"]
    return [network(model, torch.zeros(1).expand(1, 3, image["height"], image["width"]), options)]
