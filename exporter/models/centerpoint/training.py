"""Training of CenterPoint: lidar frames, mirrored, rotated and scaled, and mmdet3d's own loss."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from exporter.models.centerpoint.framework import load_input
from exporter.models.centerpoint.outputs import trained_on_y_axis
from exporter.training import (
    MIRROR_PROBABILITY,
    Labels,
    Losses,
    check_losses,
    known_labels,
    scalar_losses,
    short_name,
    unlabeled,
)
from exporter.training_config import TrainingConfig
from shared.data import Sample
from shared.errors import ConfigError
from shared.lazy import lazy_import

# Import mmcv's operators: not before `build_model` has provided them.
mmdet3d_structures = lazy_import("mmdet3d.structures")
mmengine_structures = lazy_import("mmengine.structures")
mmdet_losses = lazy_import("mmdet.models.losses")

MAX_ROTATION = 0.4  # [rad]
SCALES = (0.95, 1.05)

# AWML's loss of that name differs from mmdet's only in what it returns, class by class; its head adds that up.
_AWML_HEATMAP_LOSS = "AmpGaussianFocalLoss"
_TARGET_SETTINGS = (
    "grid_size", "voxel_size", "point_cloud_range", "out_size_factor", "dense_reg", "gaussian_overlap", "max_objs",
    "min_radius", "code_weights",
)  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """A frame to train on.

    Attributes:
        points: (N, columns) float32.
        boxes: mmdet3d's LiDARInstance3DBoxes, (M, 9).
        labels: (M,) int64, the model's.
    """

    points: Tensor
    boxes: Any
    labels: Tensor


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
    truth = sample.ground_truth
    if truth is None:
        raise unlabeled(sample)
    points = load_input(sample, parameters).clone()
    x0, y0, z0, x1, y1, z1 = parameters["point_cloud_range"]
    # Boxes without a point can't be learned, and those without a size have no logarithm.
    truth = truth.select((truth.num_points > 0) & (truth.sizes > 0).all(axis=1))
    rows, box_labels = known_labels(truth.labels, labels)
    truth = truth.select(rows)
    # mmdet3d's NuScenesDataset takes unknown velocities for 0 too.
    columns = [truth.centers, truth.sizes, truth.yaws[:, None], np.nan_to_num(truth.velocities)]
    boxes = mmdet3d_structures.LiDARInstance3DBoxes(
        torch.from_numpy(np.concatenate(columns, axis=1)), box_dim=9, origin=(0.5, 0.5, 0.5)
    )
    for direction in ("horizontal", "vertical"):
        if rng.random() < MIRROR_PROBABILITY:
            boxes.flip(direction, points)
    boxes.rotate(rng.uniform(-MAX_ROTATION, MAX_ROTATION), points)
    scale = rng.uniform(*SCALES)
    boxes.scale(scale)
    points[:, :3] *= scale
    if trained_on_y_axis(model):
        values = boxes.tensor
        values[:, [3, 4]] = values[:, [4, 3]]
        values[:, 6] = -values[:, 6] - math.pi / 2
    low, high = points.new_tensor([x0, y0, z0]), points.new_tensor([x1, y1, z1])
    # mmdet3d takes the batch size from the last voxel: a frame without one can't be in a batch.
    if not ((points[:, :3] >= low) & (points[:, :3] < high)).all(dim=1).any():
        return None
    return Frame(points, boxes, torch.from_numpy(box_labels))


def losses(model: Any, items: Sequence[Frame]) -> Losses:
    """See `exporter.training.Trainable`."""
    samples = []
    for frame in items:
        sample = mmdet3d_structures.Det3DDataSample(metainfo={"box_type_3d": mmdet3d_structures.LiDARInstance3DBoxes})
        sample.gt_instances_3d = mmengine_structures.InstanceData(bboxes_3d=frame.boxes, labels_3d=frame.labels)
        samples.append(sample)
    with warnings.catch_warnings():
        # mmdet3d copies a tensor in a way that PyTorch advises against, at every call.
        warnings.simplefilter("ignore", UserWarning)
        data = model.data_preprocessor(
            {"inputs": {"points": [frame.points for frame in items]}, "data_samples": samples}, training=True
        )
        return scalar_losses(model.loss(data["inputs"], data["data_samples"]))
