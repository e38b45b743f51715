"""Where points lie in a range image: FRNet's spherical projection, in single precision as AWML computes it.

But for the angles, which are rounded once: the single precision of NumPy, PyTorch and CUDA differs, and NumPy's from
processor to processor. Of 503,253 points of real frames, 2 are in another of 32 x 1920 pixels than by NumPy's own.
"""

from __future__ import annotations

import math

import numpy as np

from runtime.models.frnet.parameters import RangeImage, Sensor
from shared.arrays import Bool, Float32, Int64
from shared.data.sweeps import finite_rows


def in_sensor_frame(points: Float32, sensor: Sensor) -> Float32:
    """Points (N, 4) float32, seen from the sensor: a copy."""
    moved = points.copy()
    moved[:, :3] = points[:, :3] - np.array(sensor.position)
    return moved


def have_direction(points: Float32) -> Bool:
    """(N,) which points (N, 4) in the sensor's frame the network can be asked about: finite, and not at the sensor."""
    return finite_rows(points) & (depths(points) > 0)


def depths(points: Float32) -> Float32:
    """(N,) distances of points (N, 4) from the sensor [m]."""
    return np.asarray(np.linalg.norm(points[:, :3], 2, axis=1), np.float32)


def project(points: Float32, sensor: Sensor, image: RangeImage) -> tuple[Int64, Int64]:
    """Row and column of each point; those above, below or on the seam are in the image's outermost pixels.

    With the pitch asin(z / d) and the yaw -atan2(y, x), the column is (yaw / pi + 1) / 2 * width and the row
    (1 - (pitch + \\|fov_down\\|) / (\\|fov_up\\| + \\|fov_down\\|)) * height, both rounded down.

    Args:
        points: (N, 4) float32 in the sensor's frame, none at its origin.
        sensor: its field of view.
        image: the range image.

    Returns:
        Rows and columns, (N,) int64 each.
    """
    up, down = (abs(angle / 180.0 * math.pi) for angle in (sensor.fov_up, sensor.fov_down))
    x, y = points[:, :2].T.astype(np.float64)
    yaw = -np.arctan2(y, x).astype(np.float32)
    pitch = np.arcsin((points[:, 2] / depths(points)).astype(np.float64)).astype(np.float32)
    columns = np.floor(0.5 * (yaw / math.pi + 1.0) * image.width)
    rows = np.floor((1.0 - (pitch + down) / (up + down)) * image.height)
    return (
        np.clip(rows, 0, image.height - 1).astype(np.int64),
        np.clip(columns, 0, image.width - 1).astype(np.int64),
    )
