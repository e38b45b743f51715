"""How far apart two oriented boxes are, other than by center distance: nearest faces, overlap from above and in 3D.

Every function takes K pairs: rows of predictions (K,) and rows of ground truth (K,).
"""

from __future__ import annotations

import numpy as np

from shared.arrays import Bool, Float64
from shared.geometry import box_footprints
from shared.metrics.box_table import BoxTable, Int

# perception_eval rounds plane distances so that a distance of exactly 1 m does not come out as 0.9999999.
_PLANE_DECIMALS = 10


def plane_distances(predictions: BoxTable, truths: BoxTable, rows: Int, columns: Int) -> Float64:
    """(K,) distance [m] of the faces that the ego vehicle would hit first, as perception_eval 1.3 measures it.

    The two footprint corners of the ground truth that are nearest to the ego stand for its face. The prediction's
    corners are paired with the ground truth's in the cyclic order with the least summed distance, so that a box turned
    by half counts as the same box. The result is the root mean square of the two corner distances.

                  ┌───────┐
         d1 {  ┌──┼────┐  │
               │  └────┼──┘      ego at the bottom left
         d2 {  └───────┘
    """
    predicted = _footprints(predictions, rows)
    actual = _footprints(truths, columns)
    # Both lists run counter-clockwise: four ways to lay one on the other.
    shifts = np.stack([np.roll(predicted, -shift, axis=1) for shift in range(4)], axis=1)
    distances = np.sqrt(((shifts - actual[:, None]) ** 2).sum(axis=3))
    best = distances.sum(axis=2).argmin(axis=1)
    corner_distances = distances[np.arange(len(best)), best]
    nearest = np.argsort((actual**2).sum(axis=2), axis=1, kind="stable")[:, :2]
    squares = np.take_along_axis(corner_distances, nearest, axis=1) ** 2
    return np.asarray(np.round(np.sqrt(squares.sum(axis=1) / 2), _PLANE_DECIMALS))


def iou_bev(predictions: BoxTable, truths: BoxTable, rows: Int, columns: Int) -> Float64:
    """(K,) intersection over union of the footprints."""
    intersection = intersection_areas(_footprints(predictions, rows), _footprints(truths, columns))
    union = _areas(predictions, rows) + _areas(truths, columns) - intersection
    return np.asarray(intersection / union)


def iou_3d(predictions: BoxTable, truths: BoxTable, rows: Int, columns: Int) -> Float64:
    """(K,) intersection over union of the boxes, which are upright."""
    area = intersection_areas(_footprints(predictions, rows), _footprints(truths, columns))
    z, height = predictions.centers[rows, 2].astype(np.float64), predictions.sizes[rows, 2].astype(np.float64)
    truth_z, truth_height = truths.centers[columns, 2].astype(np.float64), truths.sizes[columns, 2].astype(np.float64)
    top = np.minimum(z + height / 2, truth_z + truth_height / 2)
    bottom = np.maximum(z - height / 2, truth_z - truth_height / 2)
    intersection = area * np.maximum(top - bottom, 0.0)
    union = _areas(predictions, rows) * height + _areas(truths, columns) * truth_height - intersection
    return np.asarray(intersection / union)


def intersection_areas(first: Float64, second: Float64) -> Float64:
    """(K,) area common to two rectangles.

    The common part is convex; its corners are the corners of one that lie in the other and the points where edges
    cross. Sorted by angle about their mean, they give the area by the shoelace formula.

    Args:
        first, second: (K, 4, 2) corners, counter-clockwise.
    """
    # Near the origin, coordinates keep their digits.
    origin = first.mean(axis=1, keepdims=True)
    first, second = first - origin, second - origin
    crossings, crossing = _edge_crossings(first, second)
    points = np.concatenate([first, second, crossings], axis=1)
    used = np.concatenate([_inside(first, second), _inside(second, first), crossing], axis=1)
    counts = used.sum(axis=1)
    mean = (points * used[..., None]).sum(axis=1) / np.maximum(counts, 1)[:, None]
    around = points - mean[:, None]
    angles = np.where(used, np.arctan2(around[..., 1], around[..., 0]), np.inf)
    order = np.argsort(angles, axis=1)
    ring = np.take_along_axis(around, order[..., None], axis=1)
    # Beyond the used points, repeat the first: edges of no length close the ring.
    beyond = np.arange(points.shape[1]) >= counts[:, None]
    ring = np.where(beyond[..., None], ring[:, :1], ring)
    after = np.roll(ring, -1, axis=1)
    area = (ring[..., 0] * after[..., 1] - ring[..., 1] * after[..., 0]).sum(axis=1) / 2
    return np.where(counts >= 3, np.maximum(area, 0.0), 0.0)


def _footprints(table: BoxTable, rows: Int) -> Float64:
    return box_footprints(table.centers[rows], table.sizes[rows], table.yaws[rows])


def _areas(table: BoxTable, rows: Int) -> Float64:
    return np.asarray(table.sizes[rows, 0].astype(np.float64) * table.sizes[rows, 1])


def _cross(a: Float64, b: Float64) -> Float64:
    return np.asarray(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])


def _inside(corners: Float64, other: Float64) -> Bool:
    """(K, 4) whether each corner lies in the other rectangle, its border included."""
    edges = np.roll(other, -1, axis=1) - other
    lengths = np.sqrt((edges**2).sum(axis=2))
    # Signed distance from each edge's line; a border point may miss it by rounding.
    distances = _cross(edges[:, None], corners[:, :, None] - other[:, None]) / np.maximum(lengths, 1e-300)[:, None]
    return np.asarray((distances >= -1e-12 * np.abs(other).max(axis=(1, 2), initial=0.0)[:, None, None]).all(axis=2))


def _edge_crossings(first: Float64, second: Float64) -> tuple[Float64, Bool]:
    """(K, 16, 2) points where edges cross, and (K, 16) whether they do; parallel edges don't."""
    edges, others = np.roll(first, -1, axis=1) - first, np.roll(second, -1, axis=1) - second
    denominator = _cross(edges[:, :, None], others[:, None])
    between = second[:, None] - first[:, :, None]
    # Edges this nearly parallel meet at corners that are in already.
    scale = np.sqrt((edges**2).sum(axis=2))[:, :, None] * np.sqrt((others**2).sum(axis=2))[:, None]
    parallel = np.abs(denominator) <= 1e-12 * scale
    safe = np.where(parallel, 1.0, denominator)
    along, along_other = _cross(between, others[:, None]) / safe, _cross(between, edges[:, :, None]) / safe
    crossing = ~parallel & (along >= 0) & (along <= 1) & (along_other >= 0) & (along_other <= 1)
    points = first[:, :, None] + along[..., None] * edges[:, :, None]
    return points.reshape(len(first), 16, 2), crossing.reshape(len(first), 16)
