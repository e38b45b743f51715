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
from shared.tasks.detection3d import Boxes3D

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


def boxes_of_mmdet3d(boxes: Boxes3D) -> Any:
    """Boxes as LiDARInstance3DBoxes, (M, 9); unknown velocities are 0, as mmdet3d's NuScenesDataset has them too."""
    columns = [boxes.centers, boxes.sizes, boxes.yaws[:, None], np.nan_to_num(boxes.velocities)]
    rows = torch.from_numpy(np.concatenate(columns, axis=1))
    return mmdet3d_structures.LiDARInstance3DBoxes(rows, box_dim=9, origin=(0.5, 0.5, 0.5))


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
    boxes = boxes_of_mmdet3d(truth.select(rows))
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


def instances(boxes: Any, labels: Tensor) -> Any:
    """The objects of a frame as mmdet3d's heads take them."""
    return mmengine_structures.InstanceData(bboxes_3d=boxes, labels_3d=labels)


def losses(model: Any, items: Sequence[Frame]) -> Losses:
    """See `exporter.training.Trainable`."""
    samples = []
    for frame in items:
        sample = mmdet3d_structures.Det3DDataSample(metainfo={"box_type_3d": mmdet3d_structures.LiDARInstance3DBoxes})
        sample.gt_instances_3d = instances(frame.boxes, frame.labels)
        samples.append(sample)
    with warnings.catch_warnings():
        # mmdet3d copies a tensor in a way that PyTorch advises against, at every call.
        warnings.simplefilter("ignore", UserWarning)
        data = model.data_preprocessor(
            {"inputs": {"points": [frame.points for frame in items]}, "data_samples": samples}, training=True
        )
        return scalar_losses(model.loss(data["inputs"], data["data_samples"]))
