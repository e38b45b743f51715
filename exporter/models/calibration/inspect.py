"""What `exporter inspect` needs to know of calibration status classifiers, see `exporter.inspection`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from exporter.component import Component
from exporter.models.calibration import adapter

MODEL_TYPES = ("ImageClassifier",)
AUTOWARE_OPTIONS: Mapping[str, Any] = {}

# Any size will do: the network takes images as they come.
_HEIGHT, _WIDTH = 1080, 1920


def components(model: Any, parameters: Mapping[str, Any], options: adapter.Options) -> list[Component]:  # noqa: ARG001
    """See `exporter.inspection.Inspectable`."""
    return adapter.components(model, torch.zeros(1).expand(1, adapter.CHANNELS, _HEIGHT, _WIDTH), options)
