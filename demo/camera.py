"""Six cameras around the vehicle, rendered from the geometry that the lidar sees.

Camera frame: x right, y down, z forward. Images have OpenCV's five distortion coefficients (k1, k2, p1, p2, k3) and
OpenCV's pixel convention: the center of the top left pixel is (0, 0). All sensors fire at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from demo.elementary import dot, exp, mapped, product, sin_cos, unit
from demo.labels import labels_of
from demo.rays import GROUND, NOTHING, cast, corners_of, ground_normal, normals_at
from demo.scene import CURB, CYCLE_LANE, INNER_LANE, OUTER_LANE, Annotations, Road, Snapshot

WIDTH, HEIGHT = 480, 300
NEAR = 0.3  # anything nearer than this plane is clipped [m]
SUN = unit(np.array([0.35, 0.45, 0.82]))  # in base_link, for shading only
AMBIENT = 0.45
HAZE = 220.0  # distance over which colors fade into the sky to 1/e [m]
SKY_LOW, SKY_HIGH = np.array([205.0, 218.0, 232.0]), np.array([110.0, 160.0, 220.0])

# A 2D box is kept when this share of the object is seen, over this many pixels and this height.
MIN_VISIBLE_SHARE = 0.2
MIN_VISIBLE_PIXELS = 12
MIN_BOX_HEIGHT = 6.0

EDGES = np.array([(i, i | 1 << axis) for i in range(8) for axis in range(3) if not i >> axis & 1])


@dataclass(frozen=True)
class Camera:
    """One calibrated camera: cam2img (3, 3), cam2ego (4, 4), distortion (5,)."""

    channel: str
    cam2img: NDArray[np.float64]
    cam2ego: NDArray[np.float64]
    distortion: NDArray[np.float64]


@dataclass(frozen=True)
class Boxes2D:
    """Boxes of one image; rows parallel.

    corners (n, 4) x1, y1, x2, y2 [px], the projected corners of the 3D box, clipped to the image; objects (n,) row in
    the annotations; visibility (n,) share of the object's pixels that are not occluded, 0..1.
    """

    corners: NDArray[np.float64]
    objects: NDArray[np.int64]
    visibility: NDArray[np.float64]


@dataclass(frozen=True)
class Picture:
    """A rendered image, (H, W, 3) uint8 RGB, with its boxes, and the labels of its pixels, (H, W) uint8, index into
    `demo.labels.SEGMENTS`."""

    image: NDArray[np.uint8]
    boxes: Boxes2D
    mask: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class _RayGrid:
    directions: NDArray[np.float64]  # (H, W, 3) unit vectors in base_link
    column_bounds: NDArray[np.float64]  # (2, W): least and greatest x / z in each column
    row_bounds: NDArray[np.float64]  # (2, H): least and greatest y / z in each row


@lru_cache(maxsize=1)
def camera_rig() -> tuple[Camera, ...]:
    """Return the six cameras. Each is rotated by a small angle of its own about every axis."""
    mounts = {
        "CAM_FRONT": (0.0, 70.0, (1.75, 0.03, 1.62)),
        "CAM_FRONT_RIGHT": (-56.0, 76.0, (1.45, -0.72, 1.60)),
        "CAM_BACK_RIGHT": (-112.0, 76.0, (0.25, -0.78, 1.63)),
        "CAM_BACK": (180.0, 84.0, (-0.35, -0.02, 1.61)),
        "CAM_BACK_LEFT": (112.0, 76.0, (0.24, 0.79, 1.62)),
        "CAM_FRONT_LEFT": (56.0, 76.0, (1.46, 0.71, 1.59)),
    }
    rig = []
    for index, (channel, (yaw, view, position)) in enumerate(mounts.items()):
        sine, cosine = (float(value) for value in sin_cos(view * np.pi / 360))
        focal = WIDTH / 2 * cosine / sine
        cam2img = np.array(
            [[focal, 0.0, WIDTH / 2 + 3.5 - index], [0.0, focal * 1.004, HEIGHT / 2 - 2.0 + index], [0.0, 0.0, 1.0]]
        )
        tilt = np.array([0.8 - 0.25 * index, 1.5 + 0.3 * index, yaw + 0.6 - 0.2 * index]) * np.pi / 180
        cam2ego = np.eye(4)
        cam2ego[:3, :3] = product(_turn(tilt), np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]))
        cam2ego[:3, 3] = position
        distortion = np.array([-0.060, 0.012, 0.0006, -0.0004, -0.002]) * (1.0 + 0.05 * index)
        rig.append(Camera(channel, cam2img, cam2ego, distortion))
    return tuple(rig)


def distorted(xy: NDArray[np.float64], coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply OpenCV's lens model to normalized coordinates (..., 2) = (x / z, y / z)."""
    k1, k2, p1, p2, k3 = coefficients
    x, y = xy[..., 0], xy[..., 1]
    r2 = x * x + y * y
    radial = 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))
    return np.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ],
        axis=-1,
    )


def render(camera: Camera, snapshot: Snapshot, road: Road, *, labels: bool = False) -> Picture:
    """Render what a camera sees, with the 2D boxes of the objects in it, and a mask if `labels` are wanted."""
    grid = _rays_of(camera)
    solids = snapshot.solids
    normalized, seen = _projected_outlines(camera, solids.centers, solids.sizes, solids.yaws)
    windows = _pixel_windows(grid, normalized, seen)
    origin = camera.cam2ego[:3, 3]
    count = len(snapshot.annotations)
    hits = cast(origin, grid.directions, solids, windows, snapshot.ground_slope, count)
    owner_of = np.append(solids.owners, [-1, -1])  # GROUND and NOTHING index from the end
    owner = owner_of[hits.solids]
    visible = np.bincount(owner[owner >= 0], minlength=count)
    image = _shaded(grid.directions, origin, hits.distances, hits.solids, snapshot, road)
    mask = None
    if labels:
        distances = np.where(hits.solids == NOTHING, 0.0, hits.distances)[..., None]
        mask = labels_of(hits.solids, origin + distances * grid.directions, snapshot, road)
    return Picture(image, _boxes_2d(camera, snapshot.annotations, visible, hits.alone), mask)


def project_boxes(camera: Camera, boxes: Annotations) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Project 3D boxes: x1, y1, x2, y2 clipped to the image (n, 4) [px], and which of them it shows at all (n,)."""
    normalized, seen = _projected_outlines(camera, boxes.centers, boxes.sizes, boxes.yaws)
    grid = _rays_of(camera)
    # The lens polynomial is meant for the field of view only: points are first drawn to its border.
    border = 0.05
    low = np.array([grid.column_bounds.min() - border, grid.row_bounds.min() - border])
    high = np.array([grid.column_bounds.max() + border, grid.row_bounds.max() + border])
    bent = distorted(np.clip(normalized, low, high), camera.distortion)
    u = bent[..., 0] * camera.cam2img[0, 0] + camera.cam2img[0, 2]
    v = bent[..., 1] * camera.cam2img[1, 1] + camera.cam2img[1, 2]
    corners = np.stack(
        [
            np.where(seen, u, np.inf).min(axis=1),
            np.where(seen, v, np.inf).min(axis=1),
            np.where(seen, u, -np.inf).max(axis=1),
            np.where(seen, v, -np.inf).max(axis=1),
        ],
        axis=1,
    )
    corners[:, 0::2] = np.clip(corners[:, 0::2], 0.0, WIDTH)
    corners[:, 1::2] = np.clip(corners[:, 1::2], 0.0, HEIGHT)
    inside = (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
    return corners, inside


def _boxes_2d(camera: Camera, boxes: Annotations, visible: NDArray[np.int64], alone: NDArray[np.int64]) -> Boxes2D:
    corners, inside = project_boxes(camera, boxes)
    share = visible / np.maximum(alone, 1)
    tall = corners[:, 3] - corners[:, 1] >= MIN_BOX_HEIGHT
    rows = np.flatnonzero(inside & tall & (share >= MIN_VISIBLE_SHARE) & (visible >= MIN_VISIBLE_PIXELS))
    return Boxes2D(corners[rows], rows.astype(np.int64), share[rows])


def _turn(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Rz(yaw) Ry(pitch) Rx(roll), (3, 3), of roll, pitch and yaw."""
    (sr, sp, sy), (cr, cp, cy) = (values.tolist() for values in sin_cos(angles))
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return product(about_z, about_y, about_x)


def _rays_of(camera: Camera) -> _RayGrid:
    """Return the rays of a camera. A camera that is mounted differently from the rig's camera of the same channel has
    the same lens."""
    grid = _ray_grid(camera.channel)
    own = next(c for c in camera_rig() if c.channel == camera.channel)
    if camera is own:
        return grid
    turn = product(camera.cam2ego[:3, :3], own.cam2ego[:3, :3].T)
    return replace(grid, directions=mapped(turn, grid.directions))


@lru_cache(maxsize=6)
def _ray_grid(channel: str) -> _RayGrid:
    """Invert the lens model for every pixel by fixed-point iteration, to far below a thousandth of a pixel."""
    camera = next(c for c in camera_rig() if c.channel == channel)
    u, v = np.meshgrid(np.arange(WIDTH, dtype=np.float64), np.arange(HEIGHT, dtype=np.float64))
    bent = np.stack(
        [(u - camera.cam2img[0, 2]) / camera.cam2img[0, 0], (v - camera.cam2img[1, 2]) / camera.cam2img[1, 1]], axis=-1
    )
    straight = bent.copy()
    for _ in range(25):
        straight += bent - distorted(straight, camera.distortion)
    rays = mapped(camera.cam2ego[:3, :3], np.concatenate([straight, np.ones((HEIGHT, WIDTH, 1))], axis=-1))
    return _RayGrid(
        directions=unit(rays),
        column_bounds=np.stack([straight[..., 0].min(axis=0), straight[..., 0].max(axis=0)]),
        row_bounds=np.stack([straight[..., 1].min(axis=1), straight[..., 1].max(axis=1)]),
    )


def _projected_outlines(
    camera: Camera, centers: NDArray[np.float64], sizes: NDArray[np.float64], yaws: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return x / z, y / z of the cuboids' outlines, (n, 20, 2), and which of the points count, (n, 20).

    The points are the eight corners and, on the twelve edges, where they cross the near plane.
    """
    rotation, position = camera.cam2ego[:3, :3], camera.cam2ego[:3, 3]
    corners = mapped(rotation.T, corners_of(centers, sizes, yaws) - position)
    before = corners[..., 2] > NEAR
    start, end = corners[:, EDGES[:, 0]], corners[:, EDGES[:, 1]]
    crosses = before[:, EDGES[:, 0]] != before[:, EDGES[:, 1]]
    run = np.where(crosses, end[..., 2] - start[..., 2], 1.0)
    cut = start + ((NEAR - start[..., 2]) / run)[..., None] * (end - start)
    points = np.concatenate([corners, cut], axis=1)
    counts = np.concatenate([before, crosses], axis=1)
    return points[..., :2] / np.where(counts, points[..., 2], 1.0)[..., None], counts


def _pixel_windows(grid: _RayGrid, normalized: NDArray[np.float64], counts: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return for each solid the rows and columns whose rays may meet it: see `rays.cast`."""
    low = np.where(counts[..., None], normalized, np.inf).min(axis=1)
    high = np.where(counts[..., None], normalized, -np.inf).max(axis=1)
    left = np.searchsorted(np.maximum.accumulate(grid.column_bounds[1]), low[:, 0], side="left")
    right = np.searchsorted(np.maximum.accumulate(grid.column_bounds[0]), high[:, 0], side="right")
    top = np.searchsorted(np.maximum.accumulate(grid.row_bounds[1]), low[:, 1], side="left")
    bottom = np.searchsorted(np.maximum.accumulate(grid.row_bounds[0]), high[:, 1], side="right")
    rows = np.flatnonzero((right > left) & (bottom > top))
    return np.stack([rows, top[rows], bottom[rows], left[rows], right[rows]], axis=1).astype(np.int64)


def _shaded(
    directions: NDArray[np.float64],
    origin: NDArray[np.float64],
    distances: NDArray[np.float64],
    met: NDArray[np.int32],
    snapshot: Snapshot,
    road: Road,
) -> NDArray[np.uint8]:
    """Color every pixel: sky, road with its markings, sunlit faces, all fading into haze with distance."""
    up = np.clip(directions[..., 2] * 2.5, 0.0, 1.0)[..., None]
    sky = SKY_LOW + up * (SKY_HIGH - SKY_LOW)
    image = sky.copy()
    ground = met == GROUND
    points = origin + distances[ground][:, None] * directions[ground]
    light = _light(ground_normal(snapshot.ground_slope)[None])
    image[ground] = _ground_color(points, snapshot, road) * light
    on_solid = met >= 0
    rows = met[on_solid]
    points = origin + distances[on_solid][:, None] * directions[on_solid]
    image[on_solid] = snapshot.solids.colors[rows] * _light(normals_at(points, rows, snapshot.solids))
    clear = exp(-np.where(met == NOTHING, 0.0, distances) / HAZE)[..., None]
    image = sky + clear * (image - sky)
    pixels: NDArray[np.uint8] = np.clip(np.round(image), 0, 255).astype(np.uint8)
    return pixels


def _light(normals: NDArray[np.float64]) -> NDArray[np.float64]:
    light: NDArray[np.float64] = AMBIENT + (1 - AMBIENT) * np.maximum(dot(normals, SUN), 0.0)
    return light[:, None]


def _ground_color(points: NDArray[np.float64], snapshot: Snapshot, road: Road) -> NDArray[np.float64]:
    """Return RGB (n, 3) of ground points (n, 3) in base_link: asphalt, lane markings, sidewalk."""
    local = mapped(snapshot.ego2local[:2, :2], points[:, :2]) + snapshot.ego2local[:2, 3]
    sd = road.coordinates(local)
    s, side = sd[:, 0], np.abs(sd[:, 1])
    lane_edge = (INNER_LANE + OUTER_LANE) / 2
    dashed = (np.abs(side - lane_edge) < 0.08) & (s % 10.0 < 5.0)
    solid = (side < 0.1) | (np.abs(side - (CYCLE_LANE - 0.7)) < 0.08)
    color = np.empty((len(points), 3))
    color[:] = (88.0, 88.0, 92.0)
    color[side > CURB] = (150.0, 146.0, 138.0)
    color[dashed | solid] = (235.0, 235.0, 228.0)
    return color
