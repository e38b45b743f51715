"""Rotations, poses and oriented boxes.

NumPy alone: SciPy, whose ``Rotation`` could take the place of the quaternions, would add 143 MiB to every device.

Conventions, everywhere: right-handed frames; a pose is a 4x4 matrix that maps points of its source frame into its
target frame (``lidar2ego @ p_lidar = p_ego``); quaternions are (w, x, y, z); yaw is counter-clockwise from +x, in
radians; boxes are gravity center, (length, width, height), yaw.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from shared.arrays import Float64

# Signs of the half sizes (l, w, h) at the corners of a box: the bottom face counter-clockwise from front left, then the
# top face in the same order.
CORNER_SIGNS: Float64 = np.array(
    [
        [+1, +1, -1],
        [-1, +1, -1],
        [-1, -1, -1],
        [+1, -1, -1],
        [+1, +1, +1],
        [-1, +1, +1],
        [-1, -1, +1],
        [+1, -1, +1],
    ],
    np.float64,
)


def quaternion_to_matrix(quaternion: npt.ArrayLike) -> Float64:
    """Rotation matrix of a quaternion (w, x, y, z), which is normalized first.

    Returns:
        (3, 3) float64.

    Raises:
        ValueError: not four finite numbers, or all of them zero.
    """
    values = np.asarray(quaternion, np.float64)
    if values.shape != (4,):
        raise ValueError(f"a quaternion has 4 numbers (w, x, y, z), got shape {values.shape}")
    norm = float(np.linalg.norm(values))
    if not np.isfinite(norm) or norm == 0.0:
        raise ValueError(f"quaternion {values.tolist()} has no direction")
    w, x, y, z = values / norm
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def matrix_to_quaternion(rotation: npt.ArrayLike) -> Float64:
    """Quaternion (w, x, y, z), w >= 0, of a rotation matrix (3, 3).

    The largest of the four components is computed first (Shepperd's method), so that no division is by a small number.
    The same bits everywhere: only operations that IEEE 754 fixes, in this order.

    Returns:
        (4,) float64 of length 1.
    """
    r = np.asarray(rotation, np.float64)
    trace = float(r[0, 0] + r[1, 1] + r[2, 2])
    squares = np.array([trace, r[0, 0], r[1, 1], r[2, 2]]) * 2 - trace + 1  # 4 w^2, 4 x^2, 4 y^2, 4 z^2
    products = {  # 4 times the product of two components
        (0, 1): r[2, 1] - r[1, 2],
        (0, 2): r[0, 2] - r[2, 0],
        (0, 3): r[1, 0] - r[0, 1],
        (1, 2): r[1, 0] + r[0, 1],
        (1, 3): r[0, 2] + r[2, 0],
        (2, 3): r[2, 1] + r[1, 2],
    }
    largest = int(np.argmax(squares))
    quaternion = np.array(
        [squares[i] if i == largest else products[min(i, largest), max(i, largest)] for i in range(4)]
    )
    w, x, y, z = quaternion.tolist()
    quaternion /= math.sqrt(w * w + x * x + y * y + z * z)
    return quaternion if quaternion[0] >= 0 else -quaternion


def rotation_z(yaw: float) -> Float64:
    """(3, 3) rotation about +z by ``yaw`` radians, counter-clockwise seen from above."""
    sin, cos = np.sin(yaw), np.cos(yaw)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def yaw_of(rotation: npt.ArrayLike) -> float:
    """Heading of a rotated +x axis in the xy plane, radians in (-pi, pi]; for a rotation matrix (3, 3)."""
    r = np.asarray(rotation, np.float64)
    return float(np.arctan2(r[1, 0], r[0, 0]))


def wrap_angle(angle: npt.ArrayLike) -> Float64:
    """Angles in radians moved into [-pi, pi)."""
    return np.asarray((np.asarray(angle, np.float64) + np.pi) % (2 * np.pi) - np.pi)


def pose(translation: npt.ArrayLike, rotation: npt.ArrayLike) -> Float64:
    """(4, 4) pose from a translation (3,) in meters and a rotation: matrix (3, 3) or quaternion (w, x, y, z)."""
    rotation_array = np.asarray(rotation, np.float64)
    matrix = np.eye(4)
    matrix[:3, :3] = quaternion_to_matrix(rotation_array) if rotation_array.shape == (4,) else rotation_array
    matrix[:3, 3] = np.asarray(translation, np.float64)
    return matrix


def invert_pose(matrix: npt.ArrayLike) -> Float64:
    """Inverse of a rigid pose (4, 4): ``[R^T | -R^T t]``."""
    m = np.asarray(matrix, np.float64)
    inverse = np.eye(4)
    inverse[:3, :3] = m[:3, :3].T
    inverse[:3, 3] = -m[:3, :3].T @ m[:3, 3]
    return inverse


def transform_points(matrix: npt.ArrayLike, points: npt.ArrayLike) -> Float64:
    """Points (N, 3) mapped by a pose (4, 4): ``R p + t``, in float64."""
    m = np.asarray(matrix, np.float64)
    return np.asarray(points, np.float64) @ m[:3, :3].T + m[:3, 3]


def box_corners(centers: npt.ArrayLike, sizes: npt.ArrayLike, yaws: npt.ArrayLike) -> Float64:
    """Corners of boxes.

    Args:
        centers: (N, 3) gravity centers.
        sizes: (N, 3) length, width, height.
        yaws: (N,) radians.

    Returns:
        (N, 8, 3) float64, in the order of ``CORNER_SIGNS``: ``[:, :4]`` is the bottom face, ``[:, 4:]`` the top face.
    """
    center_array = np.asarray(centers, np.float64).reshape(-1, 3)
    local = np.asarray(sizes, np.float64).reshape(-1, 1, 3) / 2 * CORNER_SIGNS
    yaw_array = np.asarray(yaws, np.float64).reshape(-1, 1)
    sin, cos = np.sin(yaw_array), np.cos(yaw_array)
    corners = np.stack(
        [local[..., 0] * cos - local[..., 1] * sin, local[..., 0] * sin + local[..., 1] * cos, local[..., 2]], axis=-1
    )
    return corners + center_array[:, None]


def box_footprints(centers: npt.ArrayLike, sizes: npt.ArrayLike, yaws: npt.ArrayLike) -> Float64:
    """Corners of boxes seen from above: (N, 4, 2) float64, counter-clockwise from front left."""
    return box_corners(centers, sizes, yaws)[:, :4, :2]


def points_in_boxes(
    points: npt.ArrayLike, centers: npt.ArrayLike, sizes: npt.ArrayLike, yaws: npt.ArrayLike
) -> list[npt.NDArray[np.int64]]:
    """Indices of the points inside each box, faces included. NaN points are in no box.

    Args:
        points: (M, >=3); columns beyond z are ignored.
        centers, sizes, yaws: boxes as in ``box_corners``.

    Returns:
        One int64 array of point indices, ascending, for each of the N boxes.
    """
    xyz = np.asarray(points)[:, :3].astype(np.float64)
    center_array = np.asarray(centers, np.float64).reshape(-1, 3)
    half_sizes = np.asarray(sizes, np.float64).reshape(-1, 3) / 2
    # Only points at the box's height, in the square around its footprint's circle, need the rotation. NaN sorts last.
    order = np.argsort(xyz[:, 0], kind="stable")
    radii = np.hypot(half_sizes[:, 0], half_sizes[:, 1])
    starts = np.searchsorted(xyz[order, 0], center_array[:, 0] - radii, side="left")
    ends = np.searchsorted(xyz[order, 0], center_array[:, 0] + radii, side="right")
    inside = []
    for row, yaw in enumerate(np.asarray(yaws, np.float64).reshape(-1)):
        near = order[starts[row] : ends[row]]
        aside = np.abs(xyz[near, 1:] - center_array[row, 1:])
        near = near[(aside <= (radii[row], half_sizes[row, 2])).all(axis=1)]
        local = (xyz[near] - center_array[row]) @ rotation_z(yaw)
        inside.append(np.sort(near[(np.abs(local) <= half_sizes[row]).all(axis=1)]))
    return inside


def count_points_in_boxes(
    points: npt.ArrayLike, centers: npt.ArrayLike, sizes: npt.ArrayLike, yaws: npt.ArrayLike
) -> npt.NDArray[np.int64]:
    """Number of points inside each box: (N,) int64. Arguments as in ``points_in_boxes``."""
    return np.array([len(index) for index in points_in_boxes(points, centers, sizes, yaws)], np.int64)


def overlaps_2d(first: npt.ArrayLike, second: npt.ArrayLike) -> Float64:
    """(N, M) intersection over union of 2D boxes (N, 4) and (M, 4): left, top, right, bottom; 0 without any area."""
    a, b = np.asarray(first, np.float64)[:, None], np.asarray(second, np.float64)[None]
    shared = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    extents = (shared, a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2])
    common, area, other = (np.maximum(extent, 0.0).prod(axis=-1) for extent in extents)
    union = area + other - common
    return np.asarray(np.divide(common, union, out=np.zeros_like(common), where=union > 0))
