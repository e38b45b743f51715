"""Boxes on camera images: their twelve edges as the lens draws them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from evaluator.report.lens import project_points
from shared.arrays import Bool, Float64, Int64
from shared.data.types import Camera
from shared.geometry import box_corners, transform_points

# Pairs of corners in the order of `shared.geometry.box_corners`: bottom, top, uprights; then the cross of the front.
_EDGES = np.array(
    [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7), (0, 7), (3, 4)]
)
# Edges are cut this far in front of the camera [m].
_NEAREST = 0.3
#: Beyond the image's edge lens models run wild: what lies further out [image sizes] is not drawn.
MARGIN = 0.25


def outlines(
    camera: Camera, ego2lidar: Float64, size: tuple[int, int], boxes: tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike]
) -> list[tuple[int, str]]:
    """Per box that the image shows, its row and an SVG path in pixels.

    Args:
        camera: the camera.
        ego2lidar: (4, 4).
        size: width and height of the image that the calibration is for [pixels].
        boxes: centers (N, 3), sizes (N, 3) [m] and yaws (N,) in the ego frame.
    """
    corners = box_corners(*boxes)
    seen = transform_points(camera.lidar2cam @ ego2lidar, corners.reshape(-1, 3)).reshape(-1, 8, 3)
    rows = np.flatnonzero(within(camera, size, seen.mean(axis=1), 0.0))
    starts, ends = seen[rows][:, _EDGES[:, 0]], seen[rows][:, _EDGES[:, 1]]
    ahead = (starts[..., 2] > _NEAREST) | (ends[..., 2] > _NEAREST)
    starts, ends = _cut(starts, ends), _cut(ends, starts)
    drawn = ahead & within(camera, size, starts, MARGIN) & within(camera, size, ends, MARGIN)
    of, _ = np.nonzero(drawn)
    lines = np.concatenate([_pixels(camera, points[drawn]) for points in (starts, ends)], axis=1).tolist()
    paths: dict[int, str] = {}
    for row, (x0, y0, x1, y1) in zip(rows[of].tolist(), lines, strict=True):
        paths[row] = f"{paths.get(row, '')}M{x0} {y0}L{x1} {y1}"
    return list(paths.items())


def _pixels(camera: Camera, points: Float64) -> Int64:
    return project_points(points, camera.intrinsics, camera.distortion).round().astype(np.int64)


def _cut(points: Float64, others: Float64) -> Float64:
    """``points`` (N, E, 3), those behind moved along their edges to the nearest distance that is drawn."""
    depth, other = points[..., 2:], others[..., 2:]
    crosses = (depth < _NEAREST) & (other > _NEAREST)
    share = np.where(crosses, (_NEAREST - depth) / np.where(crosses, other - depth, 1.0), 0.0)
    cut: Float64 = points + share * (others - points)
    return cut


def within(camera: Camera, size: tuple[int, int], points: Float64, margin: float) -> Bool:
    """(...) whether points (..., 3) lie in the image, or not further out than ``margin``, seen without the lens."""
    depths = points[..., 2:]
    focal = np.array([camera.intrinsics[0, 0], camera.intrinsics[1, 1]])
    straight = points[..., :2] / np.maximum(depths, 1e-6) * focal + camera.intrinsics[:2, 2]
    limits = np.array(size)
    inside = (straight > -margin * limits) & (straight < (1 + margin) * limits)
    return np.asarray(inside.all(axis=-1) & (depths[..., 0] > 0))
