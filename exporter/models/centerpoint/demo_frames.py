"""Training samples of the demo CenterPoint: points as the detector gets them, boxes, and targets of its head.

Everything is NumPy, so that worker processes can make samples while the accelerator trains.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demo.recording import Frame, draw_scene, record_frame
from shared.geometry import invert_pose
from shared.tasks.detection3d import Boxes3D

REMOVE_CLOSE = 1.0  # sweep points with |x| and |y| below this are dropped, as mmdet3d's loader does [m]
FRAMES_PER_TRAINING_SCENE = 2

FLIP_PROBABILITY = 0.25
MAX_ROTATION = 0.4  # [rad]
NO_SWEEP_PROBABILITY = 0.05  # first frames of recordings have no sweep before them


@dataclass(frozen=True)
class Grid:
    """The part of the head's training config that targets need."""

    low: tuple[float, float]  # x, y where the grid starts [m]
    cell: float  # of the output map [m]
    width: int  # of the output map, along x
    height: int
    classes: int
    overlap: float
    min_radius: int
    max_objects: int

    @staticmethod
    def from_config(model: dict[str, Any]) -> Grid:
        """Read the grid from the ``model`` section of a training config."""
        train = model["train_cfg"]["pts"]
        factor = train["out_size_factor"]
        head = model["pts_bbox_head"]
        return Grid(
            low=(train["point_cloud_range"][0], train["point_cloud_range"][1]),
            cell=train["voxel_size"][0] * factor,
            width=train["grid_size"][0] // factor,
            height=train["grid_size"][1] // factor,
            classes=sum(task["num_class"] for task in head["tasks"]),
            overlap=train["gaussian_overlap"],
            min_radius=train["min_radius"],
            max_objects=train["max_objs"],
        )


def merged_points(frame: Frame) -> NDArray[np.float32]:
    """Return key frame and previous sweep as x, y, z, time lag, (n, 4): as mmdet3d loads one sweep."""
    key = np.zeros((len(frame.key.points), 4), np.float32)
    key[:, :3] = frame.key.points[:, :3]
    if frame.previous is None:
        return key
    sweep2key = np.linalg.inv(frame.key.ego2global) @ frame.previous.ego2global
    to_sensor = invert_pose(sweep2key).astype(np.float32)
    past = frame.previous.points[:, :3]
    past = past[~((np.abs(past[:, 0]) < REMOVE_CLOSE) & (np.abs(past[:, 1]) < REMOVE_CLOSE))]
    moved = np.empty((len(past), 4), np.float32)
    moved[:, :3] = past @ to_sensor[:3, :3] - to_sensor[:3, 3]
    moved[:, 3] = (frame.key.timestamp - frame.previous.timestamp) / 1e6
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
        points = points[points[:, 3] == 0.0]
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


def head_targets(boxes: Boxes3D, grid: Grid) -> dict[str, NDArray[Any]]:
    """Return the targets of CenterHead for one frame.

    Returns:
        heatmap (classes, height, width) float32, 1 at centers, Gaussian around; cells (max_objects,) int64, row-major
        index of each object's cell; values (max_objects, 10) float32: offset in the cell (2), height of the gravity
        center, log of l, w, h, sine and cosine of yaw, velocity (2); mask (max_objects,) float32.
    """
    heatmap = np.zeros((grid.classes, grid.height, grid.width), np.float32)
    cells = np.zeros(grid.max_objects, np.int64)
    values = np.zeros((grid.max_objects, 10), np.float32)
    mask = np.zeros(grid.max_objects, np.float32)
    place = (boxes.centers[:, :2] - np.array(grid.low, np.float32)) / np.float32(grid.cell)
    cell = np.floor(place).astype(np.int64)
    inside = ((cell >= 0) & (cell < [grid.width, grid.height])).all(axis=1)
    for slot, row in enumerate(np.flatnonzero(inside)[: grid.max_objects].tolist()):
        x, y = cell[row].tolist()
        length, width = (boxes.sizes[row, :2] / grid.cell).tolist()
        radius = max(grid.min_radius, int(gaussian_radius(length, width, grid.overlap)))
        draw_gaussian(heatmap[boxes.labels[row]], x, y, radius)
        cells[slot] = y * grid.width + x
        mask[slot] = 1.0
        yaw = boxes.yaws[row]
        values[slot] = [
            *(place[row] - cell[row]),
            boxes.centers[row, 2],
            *np.log(boxes.sizes[row]),
            np.sin(yaw),
            np.cos(yaw),
            *boxes.velocities[row],
        ]
    return {"heatmap": heatmap, "cells": cells, "values": values, "mask": mask}


def gaussian_radius(length: float, width: float, overlap: float) -> float:
    """Return how far both corners of a box may move so that IoU stays at least `overlap` (CornerNet's three cases).

    The roots are taken as mmdet3d takes them, for equal targets.
    """
    total, area = length + width, length * width
    outward = total + np.sqrt(total**2 - 4 * area * (1 - overlap) / (1 + overlap))
    inward = 2 * total + np.sqrt(4 * total**2 - 16 * (1 - overlap) * area)
    both = -2 * overlap * total + np.sqrt(4 * overlap**2 * total**2 - 16 * overlap * (overlap - 1) * area)
    return float(min(outward, inward, both) / 2)


def draw_gaussian(heatmap: NDArray[np.float32], x: int, y: int, radius: int) -> None:
    """Raise a heat map (height, width) to a Gaussian around a cell; standard deviation a sixth of the diameter."""
    span = np.arange(-radius, radius + 1)
    sigma = (2 * radius + 1) / 6
    bell = np.exp(-(span[:, None] ** 2 + span[None] ** 2) / (2 * sigma**2)).astype(np.float32)
    height, width = heatmap.shape
    left, right = min(x, radius), min(width - x, radius + 1)
    top, bottom = min(y, radius), min(height - y, radius + 1)
    window = heatmap[y - top : y + bottom, x - left : x + right]
    np.maximum(window, bell[radius - top : radius + bottom, radius - left : radius + right], out=window)
