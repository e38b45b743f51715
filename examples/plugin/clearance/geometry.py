"""The directions around the vehicle, and how far labeled boxes are in them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shared.tasks.detection3d import Boxes3D

#: Sectors around the vehicle, counter-clockwise from straight ahead, and how far is looked [m].
SECTORS = 90
REACH = 50.0
_RAYS_PER_SECTOR = 4


def nearest_boxes(boxes: Boxes3D) -> npt.NDArray[np.float32]:
    """(SECTORS,) distance from the origin to the nearest footprint in each sector [m], REACH where there is none.

    Boxes without a lidar point inside don't count: nobody can know of them.
    """
    seen = boxes.select(boxes.num_points > 0)
    angles = (np.arange(SECTORS * _RAYS_PER_SECTOR) + 0.5) * 2 * np.pi / (SECTORS * _RAYS_PER_SECTOR)
    # In the frame of a box, a ray meets the slab along an axis from `near` to `far`: A. Kay, J. Kajiya, 1986.
    turned = angles[:, None] - seen.yaws[None]  # (rays, boxes)
    cos, sin = np.cos(seen.yaws), np.sin(seen.yaws)
    origin = np.stack([-cos * seen.centers[:, 0] - sin * seen.centers[:, 1],
                       sin * seen.centers[:, 0] - cos * seen.centers[:, 1]])  # fmt: skip
    near, far = np.zeros_like(turned), np.full_like(turned, REACH)
    for axis, direction in enumerate((np.cos(turned), np.sin(turned))):
        half = seen.sizes[:, axis] / 2
        with np.errstate(divide="ignore"):
            sides = np.stack([(-half - origin[axis]) / direction, (half - origin[axis]) / direction])
        near, far = np.maximum(near, sides.min(axis=0)), np.minimum(far, sides.max(axis=0))
    distances = np.where(near <= far, near, REACH).min(axis=1, initial=REACH)
    return np.asarray(distances.reshape(SECTORS, _RAYS_PER_SECTOR).min(axis=1), np.float32)
