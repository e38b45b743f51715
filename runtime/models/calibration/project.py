"""Lidar points projected into a camera image without distortion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shared.arrays import Float32, Float64, Int64


@dataclass(frozen=True)
class ProjectedPoints:
    """The points that an image shows; rows parallel, in the order of the points.

    Attributes:
        columns, rows: (N,) int64, the pixel.
        depths: (N,) float64, along the optical axis [m].
        index: (N,) int64, position among the points.
    """

    columns: Int64
    rows: Int64
    depths: Float64
    index: Int64

    def __len__(self) -> int:
        return len(self.index)


def project(
    points: Float32, lidar2cam: Float64, intrinsics: Float64, height: int, width: int, max_depth: float
) -> ProjectedPoints:
    """Project points into an image.

    A point counts when it lies in front of the camera, nearer than ``max_depth``, and its projection between the
    centers of the outermost pixels. Pixels are projections rounded down. NaN is nowhere. In float64, as OpenCV's
    projectPoints computes: a pixel's border must not depend on the number type.

    Args:
        points: (M, >=3) float32, x, y, z [m] in the lidar frame.
        lidar2cam: (4, 4).
        intrinsics: (3, 3), pixels; skew is ignored, as OpenCV does.
        height, width: of the image.
        max_depth: [m].
    """
    x, y, z = (points[:, axis].astype(np.float64) for axis in range(3))
    (r00, r01, r02, t0), (r10, r11, r12, t1), (r20, r21, r22, t2) = lidar2cam[:3]
    depth = r20 * x + r21 * y + r22 * z + t2
    ahead = np.flatnonzero((depth > 0) & (depth < max_depth))
    x, y, z, depth = x[ahead], y[ahead], z[ahead], depth[ahead]
    nearness = 1.0 / depth
    column = (r00 * x + r01 * y + r02 * z + t0) * nearness * intrinsics[0, 0] + intrinsics[0, 2]
    row = (r10 * x + r11 * y + r12 * z + t1) * nearness * intrinsics[1, 1] + intrinsics[1, 2]
    seen = np.flatnonzero((column >= 0) & (column <= width - 1) & (row >= 0) & (row <= height - 1))
    return ProjectedPoints(column[seen].astype(np.int64), row[seen].astype(np.int64), depth[seen], ahead[seen])
