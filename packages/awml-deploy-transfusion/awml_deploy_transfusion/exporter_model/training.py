"""Training of TransFusion: the frames of any detector in lidar frames, and AWML's losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from awml_deploy_transfusion.exporter_model.supervision import Supervision
from exporter.lidar.framework import load_input
from exporter.lidar.training import Frame, augmented_frame, losses
from exporter.training import Labels, check_losses
from exporter.training_config import TrainingConfig
from shared.data import Sample

__all__ = ["load", "losses", "prepare"]


def prepare(model: Any, config: TrainingConfig) -> None:
    """See `exporter.training.Trainable`."""
    from mmdet3d.registry import MODELS

    check_losses(config, MODELS)
    settings = (config.model.get("train_cfg") or {}).get("pts") or {}
    head = model.pts_bbox_head
    head.supervision = Supervision(head, config.model["pts_bbox_head"], settings, str(config.path))


def load(
    model: Any,  # noqa: ARG001
    sample: Sample,
    parameters: Mapping[str, Any],
    labels: Labels,
    rng: np.random.Generator,
) -> Frame | None:
    """See `exporter.training.Trainable`; None where no point lies in the model's range."""
    points = load_input(sample, parameters)
    return augmented_frame(sample, points, parameters["point_cloud_range"], labels, rng)
