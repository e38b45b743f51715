"""Training of the classifier: cross entropy, as mmpretrain's head has it. Crops are not mirrored: arrows have sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from awml_deploy_traffic_light.exporter_model.adapter import load_input, normalized
from exporter.training import Labels, Losses
from exporter.training_config import TrainingConfig
from shared.data.crops import ImageCrop

# Share of the brightness that a crop gains or loses at random.
_BRIGHTNESS = 0.2


def prepare(model: Any, config: TrainingConfig) -> None:
    """See `exporter.training.Trainable`; nothing was left out."""


def load(
    model: Any, sample: ImageCrop, parameters: Mapping[str, Any], labels: Labels, rng: np.random.Generator
) -> tuple[Tensor, Tensor] | None:
    """See `exporter.training.Trainable`: (1, 3, H, W) float32 and (1,) int64; None: a class that is not the model's."""
    label = labels.get(sample.label)
    if label is None:
        return None
    crop = load_input(sample, parameters).numpy() * rng.uniform(1 - _BRIGHTNESS, 1 + _BRIGHTNESS)
    return normalized(model, np.clip(crop, 0, 255).astype(np.uint8)), torch.tensor([label])


def losses(model: Any, items: Sequence[tuple[Tensor, Tensor]]) -> Losses:
    """See `exporter.training.Trainable`."""
    device = next(model.parameters()).device
    images, labels = (torch.cat(parts).to(device) for parts in zip(*items, strict=True))
    return {"loss": nn.functional.cross_entropy(model(images), labels)}
