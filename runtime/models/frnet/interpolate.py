"""Points between points: gaps of one pixel in the range image are filled.

A pixel shows one of its points, and a pixel without one whose left and right neighbors have one gets the mean of
theirs. By name, since Autoware's node does it otherwise than AWML's RangeInterpolation:

``awml``: the nearest point is shown; of equally near ones, the first. AWML goes through the pixels one by one and
counts those that it has filled as points from there on, but it never meets one: both neighbors of what was filled were
not empty. Its quirk: the pixel that shows the very first point counts as empty.

``autoware``: the farthest is shown, of equally far ones the first (the node takes either), and the image is of half
precision, as are the sums of two neighbors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.models.frnet.parameters import Gaps, RangeImage, Sensor
from runtime.models.frnet.project import depths, project
from shared.arrays import Float32

#: Coordinates [m] and intensities whose sums half precision holds; larger ones count as this.
MOST = 32752.0


def interpolate(points: Float32, sensor: Sensor, image: RangeImage, gaps: Gaps = "awml") -> Float32:
    """The points, and behind them the means of the two beside each gap.

    Args:
        points: (N, 4) float32 in the sensor's frame, none at its origin.
        sensor: its field of view.
        image: the range image.
        gaps: between which points, see above.

    Returns:
        (N + I, 4) float32, the added ones row by row of the image.
    """
    rows, columns = project(points, sensor, image)
    kept: npt.NDArray[np.floating[Any]] = points
    if gaps == "autoware":
        kept = points.clip(-MOST, MOST).astype(np.float16)
        x, y, z = kept[:, :3].T.astype(np.float32)
        order, least = np.argsort(-(x * x + y * y + z * z), kind="stable")[::-1], 0
    else:
        order, least = np.argsort(depths(points), kind="stable")[::-1], 1
    shown = np.full((image.height, image.width), -1, np.int64)
    shown[rows[order], columns[order]] = order  # the last of a pixel stays
    filled = shown >= least
    gap_rows, left = np.nonzero(~filled[:, 1:-1] & filled[:, :-2] & filled[:, 2:])
    sums = kept[shown[gap_rows, left]] + kept[shown[gap_rows, left + 2]]
    return np.concatenate([points, sums.astype(np.float32) / 2])
