"""Points between points: gaps of one pixel in the range image are filled (AWML's RangeInterpolation)."""

from __future__ import annotations

import numpy as np

from runtime.models.frnet.parameters import RangeImage, Sensor
from runtime.models.frnet.project import depths, project
from shared.arrays import Float32


def interpolate(points: Float32, sensor: Sensor, image: RangeImage) -> Float32:
    """The points, and behind them the means of the two beside each gap.

    A pixel shows the nearest of its points; of equally near ones, the first. A pixel without a point whose left and
    right neighbors have one gets the mean of theirs. AWML goes through the pixels one by one and counts those that it
    has filled as points from there on, but it never meets one: both neighbors of what was filled were not empty.

    Its quirk: the pixel that shows the very first point counts as empty.

    Args:
        points: (N, 4) float32 in the sensor's frame, none at its origin.
        sensor: its field of view.
        image: the range image.

    Returns:
        (N + I, 4) float32, the added ones row by row of the image.
    """
    rows, columns = project(points, sensor, image)
    far_to_near = np.argsort(depths(points), kind="stable")[::-1]
    shown = np.full((image.height, image.width), -1, np.int64)
    shown[rows[far_to_near], columns[far_to_near]] = far_to_near
    filled = shown > 0
    gap_rows, left = np.nonzero(~filled[:, 1:-1] & filled[:, :-2] & filled[:, 2:])
    added = (points[shown[gap_rows, left]] + points[shown[gap_rows, left + 2]]) / 2
    return np.concatenate([points, added])
