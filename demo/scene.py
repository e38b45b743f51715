"""One driving scene: a curved road with traffic, people and street furniture, as a function of time.

Three frames: *road* (s along the center line, d to its left), *local* (the road's start, x along it, z up; the scene's
own flat map), *global* (local turned by a heading and moved far away, as map coordinates are). Traffic keeps to the
left, as in Japan: own lanes have positive d. The ground is a plane with a slight slope; objects stay upright on it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from demo.draws import Draws
from demo.elementary import arctan2, dot, hypot, product, rotation_z, sin_cos
from demo.objects import CLASSES, Color, Part, Solids, build_parts, concatenate, draw_size, solids_of
from shared.geometry import pose, wrap_angle

REACH = 125.0  # objects are up to this far from the ego's start [m]: a little more than the 121 m that are evaluated
SWEEP_PERIOD = 0.1  # [s]
KEY_FRAME_PERIOD = 0.5  # [s], annotated at 2 Hz

INNER_LANE, OUTER_LANE = 1.75, 5.25  # d of the lane centers [m]
CYCLE_LANE = 7.9
PARKING_LANE = 10.2
CURB = 11.6
SIDEWALK = (12.2, 15.2)
BUILDING_LINE = 16.5
CROSSING_HALF_WIDTH = 5.0
EGO_SIZE = (4.9, 1.95)  # l, w [m]
EGO_CENTER_AHEAD = 1.4  # base_link is the rear axle

MAX_OBJECT_SPEED = 14.0  # [m/s]


@dataclass(frozen=True)
class Road:
    """A circular arc through the local origin, which it leaves along +x. curvature [1/m], positive to the left."""

    curvature: float

    def pose(self, s: NDArray[np.float64], d: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return x, y, heading (..., 3) in the local frame."""
        angle = self.curvature * s
        if self.curvature == 0.0:
            return np.stack([s, d, angle], axis=-1)
        radius = 1.0 / self.curvature - d
        sine, cosine = sin_cos(angle)
        return np.stack([sine * radius, 1.0 / self.curvature - cosine * radius, angle], axis=-1)

    def coordinates(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return s, d (..., 2) of local points (..., 2); the inverse of `pose` for |d| below the radius."""
        if self.curvature == 0.0:
            return xy
        side = np.sign(self.curvature)
        to_center = 1.0 / self.curvature - xy[..., 1]
        angle = arctan2(side * xy[..., 0], side * to_center)
        d = 1.0 / self.curvature - side * hypot(xy[..., 0], to_center)
        return np.stack([angle / self.curvature, d], axis=-1)


@dataclass(frozen=True)
class Actor:
    """One road user. It follows the road at fixed d (`on_road`) or goes straight from x, y along `yaw`.

    `start` is (s, d) or (x, y) [m] at time 0; `yaw` is measured against the road's heading at the place or against
    local +x [rad]; `speed` [m/s] >= 0 is along its own heading.
    """

    kind: str
    size: NDArray[np.float64]
    parts: tuple[Part, ...]
    on_road: bool
    start: tuple[float, float]
    yaw: float
    speed: float
    state: str  # moving, stopped, parked, standing: the name of its T4 attribute


@dataclass(frozen=True)
class Annotations:
    """Objects as base_link sees them at one time; rows parallel.

    centers (n, 3) [m], center of the box; sizes (n, 3) l, w, h; yaws (n,) [rad]; velocities (n, 2) [m/s], over ground,
    in base_link axes; labels (n,) index into CLASSES; instances (n,) number of the actor; states: see `Actor.state`.
    """

    centers: NDArray[np.float64]
    sizes: NDArray[np.float64]
    yaws: NDArray[np.float64]
    velocities: NDArray[np.float64]
    labels: NDArray[np.int64]
    instances: NDArray[np.int64]
    states: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.yaws)

    def select(self, rows: NDArray[np.int64]) -> Annotations:
        """Return some of the objects."""
        columns = {field.name: getattr(self, field.name)[rows] for field in fields(self) if field.name != "states"}
        return Annotations(**columns, states=tuple(self.states[row] for row in rows))


@dataclass(frozen=True)
class Snapshot:
    """The scene at one time, in base_link."""

    ego2global: NDArray[np.float64]  # (4, 4)
    ego2local: NDArray[np.float64]  # (4, 4)
    ground_slope: NDArray[np.float64]  # (2,): ground is z = slope . (x, y)
    solids: Solids  # owners: rows of `annotations`
    annotations: Annotations


@dataclass(frozen=True)
class Scene:
    """Everything about a scene that does not change with time."""

    road: Road
    local2global: NDArray[np.float64]
    ground_slope: NDArray[np.float64]  # in the local frame
    ego_lane: float
    ego_speed: float
    actors: tuple[Actor, ...]
    actor_solids: Solids  # in the actors' own frames
    clutter: Solids  # in the local frame

    def at(self, time: float) -> Snapshot:
        """Return the objects and their poses at `time` [s], seen from base_link. Objects beyond REACH are left out."""
        ego2local = self._ego2local(time)
        placed = _poses(self.actors, self.road, np.array([time]))[0]
        heading = float(arctan2(ego2local[1, 0], ego2local[0, 0]))
        slope = _rotated(self.ground_slope[None], -heading)[0]
        xy = _rotated(placed[:, :2] - ego2local[:2, 3], -heading)
        yaws = wrap_angle(placed[:, 2] - heading)
        speeds = np.array([a.speed for a in self.actors])
        near = hypot(xy[:, 0], xy[:, 1]) < REACH
        rows = np.flatnonzero(near)
        sizes = np.array([a.size for a in self.actors]).reshape(-1, 3)[rows]
        ground = dot(xy[rows], slope)
        annotations = Annotations(
            centers=np.column_stack([xy[rows], ground + sizes[:, 2] / 2]),
            sizes=sizes,
            yaws=yaws[rows],
            velocities=(speeds[:, None] * _ahead(yaws))[rows],
            labels=np.array([CLASSES.index(self.actors[i].kind) for i in rows], dtype=np.int64),
            instances=rows.astype(np.int64),
            states=tuple(self.actors[i].state for i in rows),
        )
        return Snapshot(
            ego2global=product(self.local2global, ego2local),
            ego2local=ego2local,
            ground_slope=slope,
            solids=self._solids(ego2local, heading, slope, xy, yaws, near),
            annotations=annotations,
        )

    def _ego2local(self, time: float) -> NDArray[np.float64]:
        x, y, heading = self.road.pose(np.array(self.ego_speed * time), np.array(self.ego_lane))
        return pose_matrix(np.array([x, y, dot(np.array([x, y]), self.ground_slope)]), heading)

    def _solids(
        self,
        ego2local: NDArray[np.float64],
        heading: float,
        slope: NDArray[np.float64],
        xy: NDArray[np.float64],
        yaws: NDArray[np.float64],
        near: NDArray[np.bool_],
    ) -> Solids:
        """Place the parts of the near actors, and the clutter, in base_link."""
        parts = self.actor_solids.select(near[self.actor_solids.owners])
        who = parts.owners
        turned = _rotated(parts.centers[:, :2], yaws[who])
        base = np.column_stack([xy[who], dot(xy[who], slope)])
        moving = Solids(
            centers=np.column_stack([turned, parts.centers[:, 2]]) + base,
            sizes=parts.sizes,
            yaws=yaws[who],
            reflectivity=parts.reflectivity,
            colors=parts.colors,
            owners=(np.cumsum(near) - 1)[who],
        )
        offset = self.clutter.centers - ego2local[:3, 3]
        still = Solids(
            centers=np.column_stack([_rotated(offset[:, :2], -heading), offset[:, 2]]),
            sizes=self.clutter.sizes,
            yaws=self.clutter.yaws - heading,
            reflectivity=self.clutter.reflectivity,
            colors=self.clutter.colors,
            owners=self.clutter.owners,
        )
        return concatenate([moving, still])


def pose_matrix(translation: NDArray[np.float64], yaw: float) -> NDArray[np.float64]:
    """Return the 4x4 pose of a frame that is turned by yaw about z."""
    return pose(translation, rotation_z(yaw))


def build_scene(rng: Draws, duration: float) -> Scene:
    """Draw a scene in which nothing collides from one sweep before time 0 to `duration` [s]."""
    curvature = float(rng.uniform(1 / 600, 1 / 250) * rng.choice([-1.0, 0.0, 1.0], [0.4, 0.2, 0.4]))
    road = Road(curvature)
    ego_lane = rng.choice([INNER_LANE, OUTER_LANE])
    ego_speed = rng.uniform(3.0, 12.0) if rng.random() < 0.85 else 0.0
    crossing = float(rng.uniform(15.0, 80.0) * rng.choice([-1.0, 1.0]))
    frames = int(np.ceil((duration + SWEEP_PERIOD) / KEY_FRAME_PERIOD))
    times = np.append(-SWEEP_PERIOD + np.arange(frames) * KEY_FRAME_PERIOD, duration)
    span = (-REACH - 5.0, REACH + 5.0 + ego_speed * duration)
    candidates = [
        *_traffic(rng, span, ego_lane, ego_speed),
        *_crossing_traffic(rng, road, crossing),
        *_parked(rng, span, crossing),
        *_cyclists(rng, span),
        *_pedestrians(rng, road, span, crossing),
    ]
    actors = _without_collisions(candidates, road, times, ego_lane, ego_speed)
    actor_solids = concatenate(
        [solids_of([], 0), *(solids_of(list(actor.parts), row) for row, actor in enumerate(actors))]
    )
    slope = rng.uniforms(-0.012, 0.012, (2,))
    far_away = np.array([rng.uniform(40_000, 90_000), rng.uniform(40_000, 90_000), rng.uniform(0, 60)])
    return Scene(
        road=road,
        local2global=pose_matrix(far_away, rng.uniform(-np.pi, np.pi)),
        ground_slope=slope,
        ego_lane=ego_lane,
        ego_speed=ego_speed,
        actors=tuple(actors),
        actor_solids=actor_solids,
        clutter=_clutter(rng, road, span, crossing, slope),
    )


def _rotated(xy: NDArray[np.float64], angle: float | NDArray[np.float64]) -> NDArray[np.float64]:
    sine, cosine = sin_cos(angle)
    x, y = xy[:, 0], xy[:, 1]
    return np.stack([cosine * x - sine * y, sine * x + cosine * y], axis=1)


def _ahead(yaws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the unit vectors (..., 2) of headings (...)."""
    sine, cosine = sin_cos(yaws)
    return np.stack([cosine, sine], axis=-1)


def _every(distance: float, span: tuple[float, float]) -> NDArray[np.float64]:
    """Return the places from the span's start on, a distance apart, that lie before its end."""
    count = int(np.ceil((span[1] - span[0]) / distance))
    return np.asarray(span[0] + np.arange(count) * distance, np.float64)


def _poses(actors: tuple[Actor, ...] | list[Actor], road: Road, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return x, y, yaw of every actor at every time in the local frame, (times, actors, 3)."""
    if not actors:
        return np.zeros((len(times), 0, 3))
    start = np.array([a.start for a in actors])
    yaw = np.array([a.yaw for a in actors])
    traveled = np.array([a.speed for a in actors])[None] * times[:, None]
    on_road = np.array([a.on_road for a in actors])
    # Followers of the road head along it or against it: cos(yaw) is +1 or -1 for those that move.
    ahead = _ahead(yaw)
    s = start[:, 0] + traveled * np.where(on_road, ahead[:, 0], 0.0)
    following = road.pose(s, np.broadcast_to(start[:, 1], s.shape)) + np.stack([0 * yaw, 0 * yaw, yaw], axis=1)
    straight = np.stack(
        [
            start[:, 0] + traveled * ahead[:, 0],
            start[:, 1] + traveled * ahead[:, 1],
            np.broadcast_to(yaw, traveled.shape),
        ],
        axis=-1,
    )
    return np.where(on_road[None, :, None], following, straight)


def _actor(
    rng: Draws,
    kind: str,
    start: tuple[float, float],
    yaw: float,
    speed: float,
    state: str,
    *,
    on_road: bool = True,
) -> Actor:
    size = draw_size(kind, rng)
    return Actor(kind, size, tuple(build_parts(kind, size, rng)), on_road, start, yaw, speed, state)


def _vehicle_kind(rng: Draws) -> str:
    return rng.choice(["car", "truck", "bus"], [0.58, 0.22, 0.20])


def _traffic(rng: Draws, span: tuple[float, float], ego_lane: float, ego_speed: float) -> list[Actor]:
    """Fill the four lanes; all vehicles of a lane share its speed, so that they never meet."""
    actors = []
    for lane in (INNER_LANE, OUTER_LANE, -INNER_LANE, -OUTER_LANE):
        jammed = rng.random() < 0.2
        speed = 0.0 if jammed else rng.uniform(4.0, MAX_OBJECT_SPEED)
        if lane == ego_lane:
            speed = ego_speed
        s = span[0] + rng.uniform(0.0, 15.0)
        while s < span[1]:
            heading = 0.0 if lane > 0 else np.pi
            sway = rng.normal(0.0, 0.15)
            state = "moving" if speed > 0 else "stopped"
            actors.append(_actor(rng, _vehicle_kind(rng), (float(s), lane + sway), heading, speed, state))
            s += 12.0 + rng.exponential(8.0 if speed == 0.0 else 26.0)
    return actors


def _crossing_traffic(rng: Draws, road: Road, crossing: float) -> list[Actor]:
    """Vehicles on a straight side road, driving toward the crossing, across it or away from it."""
    actors = []
    x, y, heading = road.pose(np.array(crossing), np.array(0.0))
    for direction in (1.0, -1.0):
        speed = 0.0 if rng.random() < 0.4 else rng.uniform(3.0, 9.0)
        yaw = float(heading + direction * np.pi / 2)
        along = _ahead(np.array(yaw))
        left = np.array([-along[1], along[0]])
        position = -rng.uniform(17.0, 22.0) if speed == 0.0 else -rng.uniform(30.0, 70.0)
        while position < 80.0:
            if not (speed == 0.0 and -16.0 < position < 16.0):
                start = np.array([x, y]) + position * along + INNER_LANE * left
                state = "moving" if speed > 0 else "stopped"
                kind = _vehicle_kind(rng)
                actors.append(_actor(rng, kind, (float(start[0]), float(start[1])), yaw, speed, state, on_road=False))
            position += 14.0 + rng.exponential(25.0)
    return actors


def _parked(rng: Draws, span: tuple[float, float], crossing: float) -> list[Actor]:
    actors = []
    for side in (1.0, -1.0):
        s = span[0]
        while s < span[1]:
            s += 6.5 + rng.exponential(14.0)
            if abs(s - crossing) < CROSSING_HALF_WIDTH + 6.0:
                continue
            kind = rng.choice(["car", "truck"], [0.88, 0.12])
            against = rng.random() < 0.1  # a few park facing the traffic
            yaw = float((0.0 if side > 0 else np.pi) + (np.pi if against else 0.0) + rng.normal(0.0, 0.03))
            place = (float(s), side * PARKING_LANE + rng.normal(0.0, 0.1))
            actors.append(_actor(rng, kind, place, yaw, 0.0, "parked"))
    return actors


def _cyclists(rng: Draws, span: tuple[float, float]) -> list[Actor]:
    actors = []
    for side in (1.0, -1.0):
        speed = rng.uniform(2.5, 6.5)
        s = span[0] + rng.uniform(0.0, 20.0)
        while s < span[1]:
            place = (float(s), side * CYCLE_LANE + rng.normal(0.0, 0.12))
            actors.append(_actor(rng, "bicycle", place, 0.0 if side > 0 else np.pi, speed, "moving"))
            s += 5.0 + rng.exponential(14.0)
    return actors


def _pedestrians(rng: Draws, road: Road, span: tuple[float, float], crossing: float) -> list[Actor]:
    actors = []
    for side in (1.0, -1.0):
        s = span[0]
        while s < span[1]:
            s += rng.exponential(15.0)
            heading = rng.choice([0.0, np.pi])
            walking = rng.random() < 0.8
            place = (float(s), side * rng.uniform(*SIDEWALK))
            if walking:
                actors.append(_actor(rng, "pedestrian", place, heading, rng.uniform(0.8, 1.7), "moving"))
            else:
                turned = rng.uniform(-np.pi, np.pi)
                actors.append(_actor(rng, "pedestrian", place, turned, 0.0, "standing"))
    for _ in range(2 + rng.below(5)):
        s = crossing + rng.choice([-1.0, 1.0]) * (CROSSING_HALF_WIDTH + rng.uniform(1.0, 4.0))
        direction = rng.choice([-1.0, 1.0])
        x, y, heading = road.pose(np.array(s), np.array(rng.uniform(-10.0, 10.0)))
        yaw = float(heading + direction * np.pi / 2)
        speed = rng.uniform(0.9, 1.8)
        actors.append(_actor(rng, "pedestrian", (float(x), float(y)), yaw, speed, "moving", on_road=False))
    return actors


def _discs(poses: NDArray[np.float64], sizes: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cover each footprint with three discs: centers (times, actors, 3 discs, 2) and radii (actors,) [m]."""
    shift = sizes[:, 0, None] / 3 * np.array([-1.0, 0.0, 1.0])
    centers = poses[..., None, :2] + shift[None, :, :, None] * _ahead(poses[..., 2])[..., None, :]
    return centers, hypot(sizes[:, 0] / 6, sizes[:, 1] / 2)


def _without_collisions(
    candidates: list[Actor], road: Road, times: NDArray[np.float64], ego_lane: float, ego_speed: float
) -> list[Actor]:
    """Keep the candidates, in order, that collide with neither the ego nor one kept before, at any of the times."""
    ego = road.pose(ego_speed * times, np.full(len(times), ego_lane))
    ego[:, :2] += EGO_CENTER_AHEAD * _ahead(ego[:, 2])
    poses = np.concatenate([ego[:, None], _poses(candidates, road, times)], axis=1)
    sizes = np.array([[*EGO_SIZE, 0.0], *(c.size for c in candidates)])
    centers, radii = _discs(poses, sizes)
    kept = [0]
    for row in range(1, len(sizes)):
        gaps = centers[:, row, None, :, None] - centers[:, kept, None, :]  # (times, kept, 3, 3, 2)
        room = radii[row] + radii[kept] + 0.2
        if not np.any(dot(gaps, gaps) < (room * room)[None, :, None, None]):
            kept.append(row)
    return [candidates[row - 1] for row in kept[1:]]


def _clutter(rng: Draws, road: Road, span: tuple[float, float], crossing: float, slope: NDArray[np.float64]) -> Solids:
    """Buildings, walls, poles, trees, bushes and bollards beside the road: seen by the sensors, never labeled."""
    rows: list[tuple[float, float, float, tuple[float, float, float], float, float, Color]] = []

    def add(
        s: float, d: float, size: tuple[float, float, float], bottom: float, reflectivity: float, color: Color
    ) -> None:
        if abs(s - crossing) > CROSSING_HALF_WIDTH + size[0] / 2 or abs(d) < CYCLE_LANE:
            rows.append((s, d, bottom, size, rng.normal(0.0, 0.02), reflectivity, color))

    for side in (1.0, -1.0):
        s = span[0] - 20.0
        while s < span[1] + 20.0:
            length, depth = rng.uniform(8, 26), rng.uniform(8, 14)
            tone = int(rng.uniform(110, 200))
            color = (tone, int(tone * rng.uniform(0.85, 1.0)), int(tone * rng.uniform(0.7, 1.0)))
            d = side * (BUILDING_LINE + depth / 2 + rng.exponential(2.5))
            add(s + length / 2, d, (length, depth, rng.uniform(4, 16)), -1.0, 70.0, color)
            if rng.random() < 0.3:
                wall = (rng.uniform(4, 10), 0.25, rng.uniform(1.0, 1.8))
                add(s + length / 2, side * (BUILDING_LINE - 0.4), wall, -0.2, 60.0, (150, 150, 145))
            s += length + rng.exponential(5.0) + 0.5
        for s in _every(32.0, span) + rng.uniform(0, 20):
            add(float(s), side * CURB, (0.22, 0.22, rng.uniform(5, 8)), -0.2, 55.0, (120, 125, 130))
        for s in rng.uniforms(*span, (8,)):
            d = side * rng.uniform(SIDEWALK[0], SIDEWALK[1] + 8)
            crown = rng.uniform(1.5, 3.5)
            add(float(s), d, (0.35, 0.35, 2.6), -0.2, 35.0, (90, 70, 50))
            add(float(s), d, (crown, crown, crown), 2.3, 45.0, (60, int(rng.uniform(90, 140)), 50))
        for s in rng.uniforms(*span, (12,)):
            d = side * rng.uniform(CURB, SIDEWALK[1] + 1.0)
            bush = (rng.uniform(0.2, 2.5), rng.uniform(0.2, 0.9), rng.uniform(0.4, 1.6))
            add(float(s), d, bush, -0.2, 40.0, (50, int(rng.uniform(80, 130)), 45))
        for s in rng.uniforms(*span, (6,)):
            add(float(s), side * CURB, (0.18, 0.18, 0.9), -0.1, 90.0, (200, 160, 40))
    sd = np.array([row[:2] for row in rows])
    poses = road.pose(sd[:, 0], sd[:, 1])
    sizes = np.array([row[3] for row in rows])
    bottoms = np.array([row[2] for row in rows]) + dot(poses[:, :2], slope)
    return Solids(
        centers=np.column_stack([poses[:, :2], bottoms + sizes[:, 2] / 2]),
        sizes=sizes,
        yaws=poses[:, 2] + np.array([row[4] for row in rows]),
        reflectivity=np.array([row[5] for row in rows]),
        colors=np.array([row[6] for row in rows], dtype=np.uint8),
        owners=np.full(len(rows), -1, dtype=np.int64),
    )
