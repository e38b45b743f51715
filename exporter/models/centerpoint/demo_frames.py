"""Targets of the demo CenterPoint's head, in NumPy: worker processes make them while the accelerator trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.tasks.detection3d import Boxes3D


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
