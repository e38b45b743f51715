"""The lidar: 40 rings of 1,080 rays, one sweep per call, points in base_link.

Range noise, drop-out, blind zone and intensity follow simple laws like those of real devices; the figures are in the
comments on the constants. Coordinates are rounded to 1/512 m, a grid that float32 holds exactly, so that every reader
of the file computes with the same numbers as the generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from demo.draws import Draws
from demo.elementary import arctan2, dot, exp, hypot, sin_cos
from demo.objects import Solids
from demo.rays import GROUND, NOTHING, cast, corners_of, ground_normal, normals_at
from demo.scene import Annotations, Snapshot

COLUMNS = 1080
# Elevation of the rings [deg]: a third of a degree apart around the horizon, where far objects are, wider elsewhere,
# as multi-beam sensors for driving are built.
ELEVATIONS = np.concatenate(
    [
        np.array([-25.0, -21.5, -18.5, -16.0, -14.0, -12.3, -10.8, -9.5, -8.4, -7.5, -6.7]),
        -6.0 + np.arange(25) / 3,
        np.array([3.0, 5.0, 8.0, 12.0]),
    ]
)
RINGS = len(ELEVATIONS)
POSITION = np.array([0.9, 0.0, 1.95])  # of the sensor in base_link [m]: on the roof
BLIND_ZONE = 1.5  # [m]
MAX_RANGE = 150.0  # [m]
RANGE_NOISE = 0.02  # standard deviation [m]
DROP_OUT = (0.05, 0.20)  # share of lost returns at 0 m and at 120 m and beyond
FADING = 80.0  # distance over which intensity falls to 1/e [m]
GROUND_REFLECTIVITY = 30.0
INTENSITY_NOISE = 2.0
GRID = 512.0  # points are rounded to 1/GRID m

_RADIANS = np.pi / 180  # in a degree


@dataclass(frozen=True)
class Returns:
    """A sweep: points (n, 5) as `scan` returns them, what each ray met (n,), see `rays.Hits.solids`, and where exactly,
    (n, 3) [m].
    """

    points: NDArray[np.float32]
    met: NDArray[np.int32]
    exact: NDArray[np.float64]


@lru_cache(maxsize=1)
def ray_directions() -> NDArray[np.float64]:
    """Return the unit directions of the rays, (rings, columns, 3), rings from below, columns ccw from -x."""
    up, flat = (values[:, None] for values in sin_cos(_RADIANS * ELEVATIONS))
    azimuth = (np.arange(COLUMNS)[None] + 0.5) * 2 * np.pi / COLUMNS - np.pi
    left, ahead = sin_cos(azimuth)
    return np.stack([flat * ahead, flat * left, np.broadcast_to(up, (RINGS, COLUMNS))], -1)


def scan(snapshot: Snapshot, rng: Draws) -> NDArray[np.float32]:
    """Return the sweep of a snapshot, (n, 5) float32: x, y, z [m] in base_link, intensity 0..255, ring.

    Points are in firing order: column by column, rings from below.
    """
    return trace(snapshot, rng).points


def trace(snapshot: Snapshot, rng: Draws) -> Returns:
    """Return the sweep of a snapshot, and what each of its rays met."""
    directions = ray_directions()
    solids = snapshot.solids
    windows = ray_windows(solids)
    hits = cast(POSITION, directions, solids, windows, snapshot.ground_slope, len(snapshot.annotations))
    noise = RANGE_NOISE * rng.normals(hits.distances.shape)
    lot = rng.randoms(hits.distances.shape)
    flicker = INTENSITY_NOISE * rng.normals(hits.distances.shape)
    lost_share = DROP_OUT[0] + (DROP_OUT[1] - DROP_OUT[0]) * np.minimum(hits.distances / 120.0, 1.0)
    returned = (
        (hits.solids != NOTHING) & (hits.distances < MAX_RANGE) & (hits.distances > BLIND_ZONE) & (lot >= lost_share)
    )
    columns, rings = np.nonzero(returned.T)
    distance = hits.distances[rings, columns]
    direction = directions[rings, columns]
    met = hits.solids[rings, columns]
    on_solid = met != GROUND
    normals = np.broadcast_to(ground_normal(snapshot.ground_slope), direction.shape).copy()
    exact = POSITION + distance[:, None] * direction
    normals[on_solid] = normals_at(exact[on_solid], met[on_solid], solids)
    reflectivity = np.full(len(met), GROUND_REFLECTIVITY)
    reflectivity[on_solid] = solids.reflectivity[met[on_solid]]
    facing = np.abs(dot(normals, direction))
    intensity = reflectivity * np.sqrt(facing) * exp(-distance / FADING) + flicker[rings, columns]
    xyz = POSITION + (distance + noise[rings, columns])[:, None] * direction
    points = np.empty((len(met), 5), dtype=np.float32)
    points[:, :3] = np.round(xyz * GRID) / GRID
    # Which zero is the larger one, -0 or 0, is the processor's choice; their sum is 0.
    points[:, 3] = np.clip(np.round(intensity), 0.0, 255.0) + 0.0
    points[:, 4] = rings
    return Returns(points, met, exact)


def ray_windows(solids: Solids) -> NDArray[np.int64]:
    """Return for each solid the rings and columns that may hit it, (m, 5): see `rays.cast`.

    A solid across the seam of the columns has two rows, one that no ray hits has none.
    """
    offset = solids.centers - POSITION
    corners = corners_of(offset, solids.sizes, solids.yaws)
    middle = arctan2(offset[:, 1], offset[:, 0])
    turn = arctan2(corners[:, :4, 1], corners[:, :4, 0]) - middle[:, None]
    turn = (turn + np.pi) % (2 * np.pi) - np.pi
    nearest, farthest = _ground_distance_bounds(offset, solids, corners)
    around = (nearest < 0.05) | (np.ptp(turn, axis=1) > np.pi)
    low = np.where(around, -np.pi, turn.min(axis=1)) + middle
    high = np.where(around, np.pi, turn.max(axis=1)) + middle
    step = 2 * np.pi / COLUMNS
    first = np.ceil((low + np.pi) / step - 0.5).astype(np.int64)
    end = np.floor((high + np.pi) / step - 0.5).astype(np.int64) + 1
    bottom, top = offset[:, 2] - solids.sizes[:, 2] / 2, offset[:, 2] + solids.sizes[:, 2] / 2
    distances = np.stack([np.maximum(nearest, 1e-3), farthest])
    rings = _RADIANS * ELEVATIONS
    ring_first = np.searchsorted(rings, arctan2(bottom, distances).min(axis=0), side="left")
    ring_end = np.searchsorted(rings, arctan2(top, distances).max(axis=0), side="right")
    seen = (ring_end > ring_first) & (end > first) & (nearest < MAX_RANGE)
    row = np.flatnonzero(seen)
    end = np.minimum(end, first + COLUMNS)[row]
    first = first[row]
    shift = np.floor_divide(first, COLUMNS) * COLUMNS
    first, end = first - shift, end - shift
    whole = np.stack([row, ring_first[row], ring_end[row], first, np.minimum(end, COLUMNS)], axis=1)
    over = end > COLUMNS
    rest = np.stack([row[over], ring_first[row][over], ring_end[row][over], 0 * end[over], end[over] - COLUMNS], axis=1)
    windows = np.concatenate([whole, rest]).astype(np.int64)
    return windows[np.argsort(windows[:, 0], kind="stable")]


def _ground_distance_bounds(
    offset: NDArray[np.float64], solids: Solids, corners: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the least and the greatest horizontal distance of each footprint to the sensor, (n,) each [m]."""
    sin, cos = sin_cos(solids.yaws)
    along = np.abs(cos * offset[:, 0] + sin * offset[:, 1]) - solids.sizes[:, 0] / 2
    across = np.abs(cos * offset[:, 1] - sin * offset[:, 0]) - solids.sizes[:, 1] / 2
    nearest = hypot(np.maximum(along, 0.0), np.maximum(across, 0.0))
    return nearest, hypot(corners[:, :4, 0], corners[:, :4, 1]).max(axis=1)


def count_points(points: NDArray[np.float32], boxes: Annotations) -> NDArray[np.int64]:
    """Count the points (n, >=3) inside each box, faces included, (boxes,) int64."""
    return np.array([len(rows) for rows in points_inside(points, boxes)], np.int64)


def points_inside(points: NDArray[np.float32], boxes: Annotations) -> list[NDArray[np.int64]]:
    """Return the rows of the points (n, >=3) inside each box, faces included. NaN points are in no box."""
    xyz = points[:, :3].astype(np.float64)
    half = boxes.sizes / 2
    reach = hypot(half[:, 0], half[:, 1])
    sines, cosines = sin_cos(boxes.yaws)
    inside = []
    for box, center in enumerate(boxes.centers):
        rows = np.flatnonzero(np.abs(xyz[:, 0] - center[0]) <= reach[box])
        x, y, z = (xyz[rows] - center).T
        along, across = cosines[box] * x + sines[box] * y, cosines[box] * y - sines[box] * x
        local = np.abs(np.stack([along, across, z], axis=1))
        inside.append(rows[(local <= half[box]).all(axis=1)])
    return inside
