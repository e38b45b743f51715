"""FRNet as AWML runs it: its pre-processing in NumPy and PyTorch, the network as it is trained, a class a point.

Written from what AWML's RangeInterpolation and FrustumRangePreprocessor do, step by step, and independent of the
runtime's (`runtime.models.frnet`), which is compared with it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from exporter.models.frnet.frustums import ScatteredFrustums
from shared.arrays import Bool, Float32, Int64
from shared.metrics.confusion import UNLABELED
from shared.runs import RawOutputs
from shared.tasks.segmentation3d import PointClasses

# What half precision holds of two points' sum.
MOST = 32752.0


def answer(model: Any, model_input: Tensor) -> tuple[RawOutputs, PointClasses, dict[str, int]]:
    """What AWML's pipeline answers.

    Args:
        model: the FRNet, with its deployment.
        model_input: (N, 4) float32 points.

    Returns:
        raw: probabilities (N', C), of filled gaps too; classes of the N points; counters.
    """
    frame, usable = prepared(model, model_input.cpu().numpy())
    labels = np.full(len(usable), UNLABELED, np.uint8)
    scores, margins = np.zeros(len(usable), np.float32), np.zeros(len(usable), np.float32)
    head, output = model.decode_head, model.deploy.options.output
    if not usable.any():
        return {output: np.zeros((0, head.num_classes), np.float32)}, PointClasses.build(labels, scores, margins), {}
    inputs = {name: tensor.to(model_input.device) for name, tensor in grouped(model, frame).items()}
    points = inputs.pop("points")
    with torch.no_grad():
        logits = model(points, ScatteredFrustums(model.backbone.size, **inputs))
    probabilities = torch.softmax(logits, dim=1).cpu().numpy()
    found = PointClasses.of_probabilities(probabilities[: usable.sum()])
    labels[usable] = np.where(found.labels == head.ignore_index, UNLABELED, found.labels)
    scores[usable], margins[usable] = found.scores, found.margins
    counters = {"num_points": len(points), "num_frustums": len(inputs["voxel_coors"])}
    return {output: probabilities}, PointClasses.build(labels, scores, margins), counters


def prepared(model: Any, points: Float32) -> tuple[Float32, Bool]:
    """Points (N, 4) in the sensor's frame with gaps filled, (V + I, 4), and which of the N are the first V."""
    deploy, seen = model.deploy, model.data_preprocessor
    moved = points.copy()
    moved[:, :3] -= np.array(deploy.options.sensor_position)
    usable = np.isfinite(moved).all(axis=1) & (moved[:, :3] != 0).any(axis=1)
    kept = moved[usable]
    if not len(kept):
        return kept, usable
    if deploy.options.gaps == "autoware":
        added = interpolated_by_the_node(kept, deploy.interpolation, seen.fov_up, seen.fov_down)
    else:
        added, _ = interpolated(kept, deploy.interpolation, seen.fov_up, seen.fov_down)
    return np.concatenate([kept, added]), usable


def interpolated(
    points: Float32, size: tuple[int, int], fov_up: float, fov_down: float, labels: Int64 | None = None
) -> tuple[Float32, Int64]:
    """RangeInterpolation, pixel by pixel: points (I, 4) in the gaps, and their labels (I,).

    A point between two of the same label has it; between others, and without labels, it has -1.
    """
    height, width = size
    depth, y, x = _in_image(points, size, fov_up, fov_down)
    index = np.full((height, width), -1)
    order = np.argsort(depth, kind="stable")[::-1]
    index[y[order], x[order]] = order
    image = points[index]
    valid = index > 0
    found, found_labels = [], []
    for row, column in np.argwhere(~valid).tolist():
        left, right = column - 1, column + 1
        if left < 0 or right >= width or not (valid[row, left] and valid[row, right]):
            continue
        image[row, column] = (image[row, left] + image[row, right]) / 2
        valid[row, column] = True
        found.append(image[row, column])
        beside = (-1, -2) if labels is None else (labels[index[row, left]], labels[index[row, right]])
        found_labels.append(beside[0] if beside[0] == beside[1] else -1)
    return np.array(found, np.float32).reshape(-1, points.shape[1]), np.array(found_labels, np.int64)


def interpolated_by_the_node(points: Float32, size: tuple[int, int], fov_up: float, fov_down: float) -> Float32:
    """Points (I, 4) in the gaps, as the kernels of autoware_lidar_frnet make them, one point after the other."""
    _, y, x = _in_image(points, size, fov_up, fov_down)
    halves = torch.from_numpy(points).clamp(-MOST, MOST).half()
    squares = halves[:, :3].float().square()
    depths = (squares[:, 0] + squares[:, 1] + squares[:, 2]).tolist()
    shown: dict[tuple[int, int], int] = {}
    for number, pixel in enumerate(zip(y.tolist(), x.tolist(), strict=True)):
        if pixel not in shown or depths[number] > depths[shown[pixel]]:
            shown[pixel] = number
    found = [
        (halves[shown[row, column]] + halves[shown[row, column + 2]]).float() / 2
        for row, column in sorted(shown)
        if (row, column + 1) not in shown and (row, column + 2) in shown
    ]
    return torch.stack(found).numpy() if found else np.zeros((0, points.shape[1]), np.float32)


def _in_image(points: Float32, size: tuple[int, int], fov_up: float, fov_down: float) -> tuple[Float32, Int64, Int64]:
    """Depths [m], rows and columns, (N,) each."""
    height, width = size
    up, down = abs(math.radians(fov_up)), abs(math.radians(fov_down))
    depth = np.linalg.norm(points[:, :3], 2, axis=1)
    # In double, since single precision differs from processor to processor.
    yaw = -np.arctan2(points[:, 1].astype(np.float64), points[:, 0].astype(np.float64)).astype(np.float32)
    pitch = np.arcsin((points[:, 2] / depth).astype(np.float64)).astype(np.float32)
    x = np.floor(0.5 * (yaw / np.pi + 1.0) * width).clip(0, width - 1).astype(np.int64)
    y = np.floor((1.0 - (pitch + down) / (up + down)) * height).clip(0, height - 1).astype(np.int64)
    return depth, y, x


def grouped(model: Any, points: Float32) -> dict[str, Tensor]:
    """FrustumRangePreprocessor: the network's inputs in AWML's form, by name."""
    seen = model.data_preprocessor
    height, width = seen.size
    up, down = abs(seen.fov_up / 180 * np.pi), abs(seen.fov_down / 180 * np.pi)
    tensor = torch.from_numpy(points)
    depth = torch.linalg.norm(tensor[:, :3], 2, dim=1)
    yaw = -torch.atan2(tensor[:, 1].double(), tensor[:, 0].double()).float()
    pitch = torch.arcsin((tensor[:, 2] / depth).double()).float()
    x = (0.5 * (yaw / np.pi + 1.0) * width).floor().clamp(0, width - 1).long()
    y = ((1.0 - (pitch + down) / (up + down)) * height).floor().clamp(0, height - 1).long()
    # One number a pixel: unique rows are the same, and found much sooner.
    pixels, inverse_map = torch.unique(y * width + x, return_inverse=True)
    coors, voxel_coors = (
        torch.stack([torch.zeros_like(rows), rows, columns], dim=1)
        for rows, columns in ((y, x), (pixels // width, pixels % width))
    )
    return {"points": tensor, "coors": coors, "voxel_coors": voxel_coors, "inverse_map": inverse_map}
