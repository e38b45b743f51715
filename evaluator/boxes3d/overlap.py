"""How far apart two oriented boxes are, other than by center distance: nearest faces, overlap from above and in 3D.

Every function takes K pairs: rows of predictions (K,) and rows of ground truth (K,).
"""

from __future__ import annotations

import numpy as np

from shared.arrays import Float64
from shared.geometry import box_footprints
from shared.metrics.box_table import BoxTable, Int
from shared.rectangles import intersection_areas

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


def _footprints(table: BoxTable, rows: Int) -> Float64:
    return box_footprints(table.centers[rows], table.sizes[rows], table.yaws[rows])


def _areas(table: BoxTable, rows: Int) -> Float64:
    return np.asarray(table.sizes[rows, 0].astype(np.float64) * table.sizes[rows, 1])
