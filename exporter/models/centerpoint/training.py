"""Training of CenterPoint: lidar frames, mirrored, rotated and scaled, and mmdet3d's own loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from exporter.lidar.framework import load_input
from exporter.lidar.training import Frame, augmented_frame, losses
from exporter.models.centerpoint.outputs import trained_on_y_axis
from exporter.training import Labels, check_losses
from exporter.training_config import TrainingConfig
from exporter.training_only import short_name
from shared.data import Sample
from shared.errors import ConfigError
from shared.lazy import lazy_import

# Imports mmcv's operators: not before `build_model` has provided them.
mmdet_losses = lazy_import("mmdet.models.losses")

__all__ = ["load", "losses", "prepare"]

# AWML's loss of that name differs from mmdet's only in what it returns, class by class; its head adds that up.
_AWML_HEATMAP_LOSS = "AmpGaussianFocalLoss"
_TARGET_SETTINGS = (
    "grid_size", "voxel_size", "point_cloud_range", "out_size_factor", "dense_reg", "gaussian_overlap", "max_objs",
    "min_radius", "code_weights",
)  # fmt: skip


def prepare(model: Any, config: TrainingConfig) -> None:
    """See `exporter.training.Trainable`."""
    from mmdet3d.registry import MODELS

    check_losses(config, MODELS, except_for=(_AWML_HEATMAP_LOSS,))
    head = model.pts_bbox_head
    loss = (config.model.get("pts_bbox_head") or {}).get("loss_cls") or {}
    if short_name(loss.get("type", "")) == _AWML_HEATMAP_LOSS and MODELS.get(loss["type"]) is None:
        options = {name: value for name, value in loss.items() if name not in ("type", "reduction")}
        head.loss_cls = mmdet_losses.GaussianFocalLoss(**options, reduction="mean")
    factors = (head.train_cfg or {}).get("out_size_factor")
    if isinstance(factors, (list, tuple)):
        if len(set(factors)) > 1:
            raise ConfigError(
                f"the tasks' out_size_factor are {list(factors)}; mmdet3d has targets for tasks of one resolution",
                where=str(config.path),
                hint="fine-tune it in AWML's own training with QATHook (docs/quantization.md)",
            )
        head.train_cfg["out_size_factor"] = factors[0]
    missing = [key for key in _TARGET_SETTINGS if key not in (head.train_cfg or {})]
    if missing:
        raise ConfigError(
            f"model.train_cfg.pts lacks {', '.join(missing)}, without which mmdet3d's head has no targets",
            where=str(config.path),
            hint="give the config that the model was trained with as model.config",
        )


def load(
    model: Any, sample: Sample, parameters: Mapping[str, Any], labels: Labels, rng: np.random.Generator
) -> Frame | None:
    """See `exporter.training.Trainable`; None where no point lies in the model's range."""
    points = load_input(sample, parameters)
    frame = augmented_frame(sample, points, parameters["point_cloud_range"], labels, rng)
    if frame is not None and trained_on_y_axis(model):
        values = frame.boxes.tensor
        values[:, [3, 4]] = values[:, [4, 3]]
        values[:, 6] = -values[:, 6] - math.pi / 2
    return frame
