"""What `exporter inspect` needs to know of the classifier, see `exporter.inspection`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from awml_deploy_traffic_light.exporter_model.adapter import Options, network
from exporter.component import Component

MODEL_TYPES = ("ImageClassifier/MobileNetV2",)
AUTOWARE_OPTIONS: Mapping[str, Any] = {"batch_size": 6}


def components(model: Any, parameters: Mapping[str, Any], options: Options) -> list[Component]:
    """See `exporter.inspection.Inspectable`."""
    image = parameters["image"]
    return [network(model, torch.zeros(1).expand(1, 3, image["height"], image["width"]), options)]
