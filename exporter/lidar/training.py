"""What trainings of detectors in lidar frames share: mirrored, rotated and scaled frames, and mmdet3d's own loss."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from exporter.training import MIRROR_PROBABILITY, Labels, Losses, known_labels, scalar_losses, unlabeled
from shared.data import Sample
from shared.lazy import lazy_import

# Import mmcv's operators: not before `build_model` has provided them.
mmdet3d_structures = lazy_import("mmdet3d.structures")
mmengine_structures = lazy_import("mmengine.structures")

MAX_ROTATION = 0.4  # [rad]
SCALES = (0.95, 1.05)


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


def augmented_frame(
    sample: Sample, points: Tensor, point_cloud_range: Sequence[float], labels: Labels, rng: np.random.Generator
) -> Frame | None:
    """A labeled sample, mirrored, rotated and scaled at random; None where no point lies in the model's range.

    Args:
        sample: of a data set.
        points: (N, columns) float32 of the sample; left as they are.
        point_cloud_range: x, y, z at least and at most [m].
        labels: see `exporter.training.label_map`.
        rng: decides the augmentation.

    Raises:
        InputError: the sample has no labels.
    """
    truth = sample.ground_truth
    if truth is None:
        raise unlabeled(sample)
    points = points.clone()
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
    low, high = points.new_tensor(point_cloud_range).view(2, 3)
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
