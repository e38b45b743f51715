"""Training of the calibration status classifier: mirrored pairs, and cross entropy, which is mmpretrain's default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from exporter.models.calibration.adapter import Classifier, load_input
from exporter.training import MIRROR_PROBABILITY, Labels, Losses
from exporter.training_config import TrainingConfig
from shared.data.camera_pairs import CameraPair


def prepare(model: Any, config: TrainingConfig) -> None:
    """See `exporter.training.Trainable`; nothing was left out."""


def load(
    model: Any,  # noqa: ARG001  every model has these arguments
    sample: CameraPair,
    parameters: Mapping[str, Any],
    labels: Labels,  # noqa: ARG001
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """See `exporter.training.Trainable`: (1, 5, H, W) float32 and (1,) int64."""
    channels = load_input(sample, parameters)
    # Image and points alike: mirroring both does not change whether they are calibrated.
    return channels.flip(3) if rng.random() < MIRROR_PROBABILITY else channels, torch.tensor([sample.label])


def losses(model: Any, items: Sequence[tuple[Tensor, Tensor]]) -> Losses:
    """See `exporter.training.Trainable`."""
    device = next(model.parameters()).device
    classifier = Classifier(model)
    # One by one: cameras of a data set may have different sizes, and batch norms are frozen.
    parts = [
        nn.functional.cross_entropy(classifier(channels.to(device)), label.to(device)) for channels, label in items
    ]
    return {"loss": torch.stack(parts).mean()}
