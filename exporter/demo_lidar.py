"""What trainings of the demo's lidar detectors share: frames as a detector gets them, voxels, held-out figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demo.objects import CLASSES
from demo.recording import Frame, draw_scene, record_frame, record_scene, scene_lengths
from exporter.demo_training import HELD_OUT_FRAMES, HELD_OUT_SEED, HeldOut, figures
from shared.geometry import invert_pose
from shared.metrics import nuscenes
from shared.tasks.detection3d import Boxes3D

REMOVE_CLOSE = 1.0  # sweep points with |x| and |y| below this are dropped, as mmdet3d's loader does [m]
FRAMES_PER_TRAINING_SCENE = 2

FLIP_PROBABILITY = 0.25
MAX_ROTATION = 0.4  # [rad]
NO_SWEEP_PROBABILITY = 0.05  # first frames of recordings have no sweep before them


def merged_points(frame: Frame, *, intensity: bool = False) -> NDArray[np.float32]:
    """Return key frame and previous sweep as x, y, z, time lag, (n, 4): as mmdet3d loads one sweep.

    Args:
        frame: of the demo.
        intensity: whether the fourth of five columns is the intensity, 0 to 255.
    """
    columns = 4 if intensity else 3
    key = np.zeros((len(frame.key.points), columns + 1), np.float32)
    key[:, :columns] = frame.key.points[:, :columns]
    if frame.previous is None:
        return key
    sweep2key = np.linalg.inv(frame.key.ego2global) @ frame.previous.ego2global
    to_sensor = invert_pose(sweep2key).astype(np.float32)
    past = frame.previous.points[:, :columns]
    past = past[~((np.abs(past[:, 0]) < REMOVE_CLOSE) & (np.abs(past[:, 1]) < REMOVE_CLOSE))]
    moved = np.empty((len(past), columns + 1), np.float32)
    moved[:, :3] = past[:, :3] @ to_sensor[:3, :3] - to_sensor[:3, 3]
    moved[:, 3:columns] = past[:, 3:]
    moved[:, columns] = (frame.key.timestamp - frame.previous.timestamp) / 1e6
    return np.concatenate([key, moved])


def labeled_boxes(frame: Frame) -> Boxes3D:
    """Return the boxes with at least one point, in base_link."""
    a = frame.annotations
    boxes = Boxes3D.build(a.centers, a.sizes, a.yaws, a.velocities, a.labels, num_points=frame.num_lidar_pts)
    return boxes.select(boxes.num_points > 0)


def training_frame(seed: int, index: int) -> Frame:
    """Record training frame `index`: the scenes of split ``train`` in order, a few frames of each."""
    number, which = divmod(index, FRAMES_PER_TRAINING_SCENE)
    scene = draw_scene(seed, "train", number, FRAMES_PER_TRAINING_SCENE)
    # `previous` always: that training also sees frames without a sweep is the augmentation's part.
    return record_frame(scene, seed, "train", number, which, cameras=False, previous=True)


def augmented(
    points: NDArray[np.float32], boxes: Boxes3D, rng: np.random.Generator
) -> tuple[NDArray[np.float32], Boxes3D]:
    """Mirror and turn a frame, points and boxes alike; a mirrored object still has its front where its yaw points."""
    if rng.random() < NO_SWEEP_PROBABILITY:
        points = points[points[:, -1] == 0.0]
    mirror = np.where(rng.random(2) < FLIP_PROBABILITY, -1.0, 1.0).astype(np.float32)
    angle = np.float32(rng.uniform(-MAX_ROTATION, MAX_ROTATION))
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, sin], [-sin, cos]], np.float32) * mirror[:, None]  # rows are multiplied from the right
    heading = np.stack([np.cos(boxes.yaws), np.sin(boxes.yaws)], axis=1) @ turn
    return (
        np.concatenate([points[:, :2] @ turn, points[:, 2:]], axis=1),
        replace(
            boxes,
            centers=np.concatenate([boxes.centers[:, :2] @ turn, boxes.centers[:, 2:]], axis=1),
            yaws=np.arctan2(heading[:, 1], heading[:, 0]),
            velocities=boxes.velocities @ turn,
        ),
    )


def joined(frames: Sequence[NDArray[np.float32]]) -> Tensor:
    """Points of frames, (n, F) each, as one tensor (n, 1 + F) with the frame's number in front."""
    numbered = [
        np.concatenate([np.full((len(points), 1), number, np.float32), points], axis=1)
        for number, points in enumerate(frames)
    ]
    return torch.from_numpy(np.concatenate(numbered))


def voxelize(points: Tensor, layer: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Group points into pillars, the first `max_num_points` of each; there is no limit on pillars.

    Args:
        points: (n, 1 + F), sample number, x, y, z and other features.
        layer: the config's ``voxel_layer``.

    Returns:
        voxels (V, max_num_points, F), padded with zeros; number of points (V,); cells (V, 4) as sample, z, y, x.
    """
    low = points.new_tensor(layer["point_cloud_range"][:3])
    high = points.new_tensor(layer["point_cloud_range"][3:])
    size = points.new_tensor(layer["voxel_size"])
    limit: int = layer["max_num_points"]
    grid = torch.round((high - low) / size).long()
    cell = torch.floor((points[:, 1:4] - low) / size).long()
    inside = ((cell >= 0) & (cell < grid)).all(dim=1)
    points, cell = points[inside], cell[inside]
    flat = ((points[:, 0].long() * grid[2] + cell[:, 2]) * grid[1] + cell[:, 1]) * grid[0] + cell[:, 0]
    order = torch.argsort(flat, stable=True)
    pillars, pillar, counts = torch.unique_consecutive(flat[order], return_inverse=True, return_counts=True)
    slot = torch.arange(len(order), device=points.device) - (torch.cumsum(counts, 0) - counts)[pillar]
    kept = slot < limit
    voxels = points.new_zeros(len(pillars), limit, points.shape[1] - 1)
    voxels[pillar[kept], slot[kept]] = points[order[kept], 1:]
    x, rest = pillars % grid[0], pillars // grid[0]
    y, rest = rest % grid[1], rest // grid[1]
    cells = torch.stack([rest // grid[2], rest % grid[2], y, x], dim=1).int()
    return voxels, counts.clamp(max=limit), cells


def held_out(detect: Callable[[Frame], Boxes3D], ranges: Sequence[float], frames: int = HELD_OUT_FRAMES) -> HeldOut:
    """Return nuScenes' metrics on the demo's evaluation frames.

    Args:
        detect: the model, in evaluation mode.
        ranges: distances that objects lie within [m].
        frames: how many.
    """
    predictions, truths = [], []
    for number, length in enumerate(scene_lengths(frames)):
        for frame in record_scene(HELD_OUT_SEED, "eval", number, length, cameras=False).frames:
            predictions.append(detect(frame))
            truth = labeled_boxes(frame)
            truths.append(Boxes3D.build(truth.centers, truth.sizes, truth.yaws, truth.velocities, truth.labels))
    metrics: dict[str, Mapping[str, float]] = {
        f"0-{limit:.0f} m": _numbers(nuscenes.score_frames(predictions, truths, CLASSES, limit)) for limit in ranges
    }
    return HeldOut([f"{limit}: {figures(values)}" for limit, values in metrics.items()], metrics)


def _numbers(score: nuscenes.NuscenesScore) -> dict[str, float]:
    """What the checkpoint and the log keep of the metric."""
    numbers: dict[str, float] = {}
    for name, values in score.classes.items():
        numbers |= {f"AP/{name}": values.mean_average_precision, f"AOE/{name}": values.errors["AOE"]}
    return {**numbers, "mAP": score.mean_average_precision, "mAOE": score.errors["AOE"], "mAVE": score.errors["AVE"]}
