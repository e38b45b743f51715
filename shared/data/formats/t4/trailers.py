"""A truck and its trailer as one truck, as the boxes of AWML's T4 data sets are made.

AWML labels no trailers: one that belongs to a truck is merged with it, the others are ignored (``merge_objects``
``truck: [truck, trailer]`` with ``merge_type`` ``extend_longer`` in its data set configs; arithmetic of its
``t4converter.py``). A box that merges here is that box, its vertical extent included, which AWML computes as if
centers were bottoms.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shared.arrays import Float64
from shared.geometry import box_footprints
from shared.tasks.detection3d import Boxes3D

#: A front or back that is this near to one of the other box [m] belongs to it, as does whatever overlaps.
_NEAR = 2.0


def merge_trailers(boxes: Boxes3D, truck: int, trailer: int) -> Boxes3D:
    """The boxes, each trailer merged with the first truck that it belongs to, and without the other trailers.

    Args:
        boxes: of one frame.
        truck, trailer: their labels. A merged box has that of trucks, the points of both, and their mean velocity.
    """
    free = set(np.flatnonzero(boxes.labels == trailer).tolist())
    columns = {name: getattr(boxes, name).copy() for name in boxes.columns()}
    for first in np.flatnonzero(boxes.labels == truck).tolist():
        second = next((row for row in sorted(free) if _belong_together(boxes, first, row)), None)
        if second is not None:
            free.discard(second)
            columns["centers"][first], columns["sizes"][first], columns["yaws"][first] = _merged(boxes, first, second)
            columns["velocities"][first] = (boxes.velocities[first] + boxes.velocities[second]) / 2
            columns["num_points"][first] += boxes.num_points[second]
    return Boxes3D(**columns).select(boxes.labels != trailer)


def _belong_together(boxes: Boxes3D, first: int, second: int) -> bool:
    ends = [_ends(boxes.centers[row], boxes.sizes[row, 0], boxes.yaws[row]) for row in (first, second)]
    gaps = np.linalg.norm(ends[0][:, None] - ends[1][None], axis=2)
    return bool(gaps.min() <= _NEAR) or _overlap(boxes, [first, second])


def _overlap(boxes: Boxes3D, rows: list[int]) -> bool:
    """Whether two footprints have a point in common: no side of either has the whole other box beyond it."""
    footprints = box_footprints(boxes.centers[rows], boxes.sizes[rows], boxes.yaws[rows])
    for corners in footprints:
        for axis in (corners[0] - corners[1], corners[1] - corners[2]):
            a, b = footprints[0] @ axis, footprints[1] @ axis
            if a.max() < b.min() or b.max() < a.min():
                return False
    return True


def _ends(center: npt.NDArray[np.floating], length: float, yaw: float) -> Float64:
    """(2, 3) middle of front and back face."""
    half = np.array([np.cos(yaw), np.sin(yaw), 0.0]) * length / 2
    return np.array([center + half, center - half], np.float64)


def _merged(boxes: Boxes3D, first: int, second: int) -> tuple[Float64, Float64, float]:
    """Center, size and yaw of the larger box, made longer until it ends where the smaller one does."""
    areas = boxes.sizes[:, 0].astype(np.float64) * boxes.sizes[:, 1]
    large, small = (first, second) if areas[first] >= areas[second] else (second, first)
    ends = []
    for row in (large, small):
        length, width, _ = boxes.sizes[row]
        along = boxes.yaws[row] + (0.0 if length >= width else np.pi / 2)
        ends.append(_ends(boxes.centers[row], max(length, width), along)[:, :2])
    center, other = (boxes.centers[row, :2].astype(np.float64) for row in (large, small))
    near = ends[0][np.linalg.norm(ends[0] - other, axis=1).argmin()]
    far = ends[1][np.linalg.norm(ends[1] - center, axis=1).argmax()]
    axis = (near - center) / np.linalg.norm(near - center)
    growth = float((far - near) @ axis)
    size, z = boxes.sizes[large].astype(np.float64), boxes.centers[[first, second], 2].astype(np.float64)
    size[0 if size[0] >= size[1] else 1] += abs(growth)
    size[2] = (z + boxes.sizes[[first, second], 2]).max() - z.min()
    return np.array([*(center + axis * growth / 2), z.min()]), size, float(boxes.yaws[large])
