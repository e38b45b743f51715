"""Training of YOLOX: letterboxed images, mirrored, and mmdet's own loss."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from exporter.models.yolox.framework import load_input
from exporter.training import (
    MIRROR_PROBABILITY,
    Labels,
    Losses,
    check_losses,
    known_labels,
    scalar_losses,
    unlabeled,
)
from exporter.training_config import TrainingConfig
from shared.data import ImageSample
from shared.errors import ConfigError
from shared.lazy import lazy_import

mmengine_structures = lazy_import("mmengine.structures")


def prepare(model: Any, config: TrainingConfig) -> None:
    """See `exporter.training.Trainable`."""
    from mmdet.registry import MODELS

    check_losses(config, MODELS)
    if not model.bbox_head.train_cfg:
        raise ConfigError(
            "model.train_cfg is missing, without which mmdet's head assigns no targets",
            where=str(config.path),
            hint="give the config that the model was trained with as model.config",
        )
    # Fine-tuning continues a finished YOLOX training, whose schedule adds the L1 loss in the last epochs.
    model.bbox_head.use_l1 = True


def load(
    model: Any, sample: ImageSample, parameters: Mapping[str, Any], labels: Labels, rng: np.random.Generator
) -> dict[str, Any]:
    """See `exporter.training.Trainable`."""
    if sample.labels is None:
        raise unlabeled(sample)
    data = load_input(sample, parameters).prepared(model)
    image, packed = data["inputs"][0], data["data_samples"][0]
    kept = ~sample.labels.ignored
    rows, box_labels = known_labels(sample.labels.boxes.labels[kept], labels)
    scale = np.asarray([*packed.scale_factor, *packed.scale_factor], np.float32)
    corners = torch.from_numpy(sample.labels.boxes.corners[kept][rows] * scale)
    if rng.random() < MIRROR_PROBABILITY:
        # Only the picture, which lies at the left; what fills the rest stays at the right.
        width = min(image.shape[2], round(packed.ori_shape[1] * float(packed.scale_factor[0])))
        image = torch.cat([image[:, :, :width].flip(2), image[:, :, width:]], dim=2)
        corners[:, [0, 2]] = width - corners[:, [2, 0]]
    packed.gt_instances = mmengine_structures.InstanceData(bboxes=corners, labels=torch.from_numpy(box_labels))
    return {"inputs": image, "data_samples": packed}


def losses(model: Any, items: Sequence[Mapping[str, Any]]) -> Losses:
    """See `exporter.training.Trainable`."""
    batch = {key: [item[key] for item in items] for key in ("inputs", "data_samples")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        # training=False: the size of the images stays that of the deployed network.
        data = model.data_preprocessor(batch, training=False)
        return scalar_losses(model.loss(data["inputs"], data["data_samples"]))
