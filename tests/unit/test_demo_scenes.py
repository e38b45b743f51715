"""The demo's world: ray casting is right, sweeps align, and the front of a thing differs from its rear."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.camera import camera_rig, distorted, project_boxes
from demo.draws import Draws
from demo.lidar import POSITION, ray_directions, ray_windows, scan
from demo.objects import BOX_MARGIN, CLASSES, Solids, build_parts, draw_size, solids_of
from demo.rays import GROUND, NOTHING, cast
from demo.recording import draw_scene
from demo.scene import Annotations, Road, Scene, Snapshot, build_scene


def _everything(count: int) -> np.ndarray:
    """Windows that hold the whole grid for every solid."""
    height, width = ray_directions().shape[:2]
    return np.array([[row, 0, height, 0, width] for row in range(count)], dtype=np.int64)


def test_windows_change_nothing() -> None:
    """Casting against each solid's window gives what casting against the whole grid gives, ray by ray."""
    snapshot = draw_scene(3, "val", 0, 1).at(0.0)
    arguments = (POSITION, ray_directions(), snapshot.solids)
    rest = (snapshot.ground_slope, len(snapshot.annotations))
    fast = cast(*arguments, ray_windows(snapshot.solids), *rest)
    slow = cast(*arguments, _everything(len(snapshot.solids)), *rest)
    np.testing.assert_array_equal(fast.solids, slow.solids)
    np.testing.assert_array_equal(fast.distances, slow.distances)
    np.testing.assert_array_equal(fast.alone, slow.alone)


def _one_box(center: tuple[float, float, float], size: tuple[float, float, float], yaw: float) -> Solids:
    return Solids(
        np.array([center]),
        np.array([size]),
        np.array([yaw]),
        np.array([50.0]),
        np.zeros((1, 3), np.uint8),
        np.array([0]),
    )


@settings(max_examples=60)
@given(
    distance=st.floats(0.5, 120),
    azimuth=st.floats(-np.pi, np.pi),
    z=st.floats(-1, 3),
    size=st.tuples(st.floats(0.1, 30), st.floats(0.1, 12), st.floats(0.1, 10)),
    yaw=st.floats(-np.pi, np.pi),
)
def test_windows_hold_every_ray_that_meets_a_box(
    distance: float, azimuth: float, z: float, size: tuple[float, float, float], yaw: float
) -> None:
    center = (POSITION[0] + distance * np.cos(azimuth), POSITION[1] + distance * np.sin(azimuth), z)
    box = _one_box(center, size, yaw)
    slope = np.zeros(2)
    fast = cast(POSITION, ray_directions(), box, ray_windows(box), slope, 1)
    slow = cast(POSITION, ray_directions(), box, _everything(1), slope, 1)
    np.testing.assert_array_equal(fast.solids, slow.solids)


def test_a_ray_stops_at_the_face_before_it() -> None:
    box = _one_box((10.0, 0.0, 1.0), (2.0, 4.0, 2.0), 0.0)
    directions = np.array([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.8, 0.0, -0.6]]])
    hits = cast(np.array([0.0, 0.0, 1.0]), directions, box, np.array([[0, 0, 1, 0, 3]]), np.zeros(2), 1)
    np.testing.assert_array_equal(hits.solids, [[0, NOTHING, GROUND]])
    np.testing.assert_allclose(hits.distances, [[9.0, np.inf, 1.0 / 0.6]])
    np.testing.assert_array_equal(hits.alone, [1])


def _surface_distance(points: np.ndarray, snapshot: Snapshot) -> np.ndarray:
    """Distance of each point to the nearest surface, ground included (vertical)."""
    solids = snapshot.solids
    best = np.abs(points[:, 2] - points[:, :2] @ snapshot.ground_slope)
    for row in range(len(solids)):
        offset = points - solids.centers[row]
        cos, sin = np.cos(solids.yaws[row]), np.sin(solids.yaws[row])
        local = np.stack(
            [cos * offset[:, 0] + sin * offset[:, 1], cos * offset[:, 1] - sin * offset[:, 0], offset[:, 2]], axis=1
        )
        beyond = np.abs(local) - solids.sizes[row] / 2
        outside = np.linalg.norm(np.maximum(beyond, 0.0), axis=1)
        inside = np.minimum(beyond.max(axis=1), 0.0)
        best = np.minimum(best, np.abs(outside + inside))
    return best


def _without_traffic(scene: Scene) -> Scene:
    return replace(scene, actors=(), actor_solids=solids_of([], 0))


def test_static_walls_align_after_the_sweep_transform() -> None:
    for seed in range(20):
        scene = build_scene(Draws(seed), 2.0)
        if scene.ego_speed > 6.0 and scene.road.curvature != 0.0:
            break
    scene = _without_traffic(scene)
    key, before = scene.at(1.0), scene.at(0.9)
    points = scan(before, Draws(0))[::9, :3].astype(np.float64)
    points = points[np.linalg.norm(points, axis=1) < 60.0]
    sweep2key = np.linalg.inv(key.ego2global) @ before.ego2global
    aligned = points @ sweep2key[:3, :3].T + sweep2key[:3, 3]
    noise = 0.02
    assert np.percentile(_surface_distance(aligned, key), 99) < 4 * noise
    # The test can fail: leaving the motion out, or applying it the wrong way round, is seen at once.
    inverse = np.linalg.inv(sweep2key)
    wrong = points @ inverse[:3, :3].T + inverse[:3, 3]
    assert np.percentile(_surface_distance(points, key), 99) > 10 * noise
    assert np.percentile(_surface_distance(wrong, key), 99) > 10 * noise


def test_objects_move_as_their_velocity_says() -> None:
    scene = build_scene(Draws(4), 2.0)
    now, soon = scene.at(1.0), scene.at(1.05)
    common, first, second = np.intersect1d(now.annotations.instances, soon.annotations.instances, return_indices=True)
    assert len(common) > 20
    to_now = np.linalg.inv(now.ego2global) @ soon.ego2global
    later = soon.annotations.centers[second] @ to_now[:3, :3].T + to_now[:3, 3]
    moved = (later - now.annotations.centers[first])[:, :2] / 0.05
    np.testing.assert_allclose(moved, now.annotations.velocities[first], atol=0.05)
    speeds = np.hypot(*now.annotations.velocities.T)
    heading = np.stack([np.cos(now.annotations.yaws), np.sin(now.annotations.yaws)], axis=1)
    forward = np.einsum("ij,ij->i", heading, now.annotations.velocities)
    np.testing.assert_allclose(forward, speeds, atol=1e-9)  # everything moves the way it looks


def _seen(kind: str, yaw: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scan one object 12 m ahead; returns its points in its own axes, from its center, and its size."""
    rng = Draws(seed)
    size = draw_size(kind, rng)
    parts = solids_of(build_parts(kind, size, rng), 0)
    cos, sin = np.cos(yaw), np.sin(yaw)
    x, y = parts.centers[:, 0], parts.centers[:, 1]
    centers = np.column_stack([12.0 + cos * x - sin * y, sin * x + cos * y, parts.centers[:, 2]])
    solids = replace(parts, centers=centers, yaws=parts.yaws + yaw)
    box = Annotations(
        np.array([[12.0, 0.0, size[2] / 2]]), size[None], np.array([yaw]), np.zeros((1, 2)), np.zeros(1, int),
        np.zeros(1, int), ("parked",),
    )  # fmt: skip
    points = scan(Snapshot(np.eye(4), np.eye(4), np.zeros(2), solids, box), Draws(seed))
    offset = points[:, :2].astype(np.float64) - [12.0, 0.0]
    local = np.column_stack([cos * offset[:, 0] + sin * offset[:, 1], cos * offset[:, 1] - sin * offset[:, 0]])
    inside = (np.abs(local) <= size[:2] / 2).all(axis=1) & (points[:, 2] > 0.1) & (points[:, 2] <= size[2])
    return np.column_stack([local, points[:, 2:4]])[inside], size


@pytest.mark.parametrize("kind", CLASSES)
def test_front_and_rear_differ_in_shape(kind: str) -> None:
    """From ahead and from behind, the depth of what is seen differs by height in a way that noise does not explain."""
    profiles = []
    for yaw in (0.0, np.pi):  # 0: we see its rear
        points, size = _seen(kind, yaw, seed=2)
        assert len(points) > 20
        # How deep into the object the lidar sees, by tenths of the height.
        face = size[0] / 2 - np.abs(points[:, 0])
        tenth = np.minimum((points[:, 2] / size[2] * 10).astype(int), 9)
        profiles.append([np.median(face[tenth == t]) if (tenth == t).sum() > 2 else np.nan for t in range(10)])
    difference = np.abs(np.array(profiles[0]) - np.array(profiles[1]))
    assert np.nanmax(difference) > 0.1


@pytest.mark.parametrize("kind", ["car", "truck", "bus"])
def test_the_rear_of_a_vehicle_is_brighter(kind: str) -> None:
    for seed in range(3):
        rear, _ = _seen(kind, 0.0, seed)
        front, _ = _seen(kind, np.pi, seed)
        assert rear[:, 3].max() > 120 > front[:, 3].max()  # lamps and plate


@pytest.mark.parametrize("kind", CLASSES)
def test_parts_stay_inside_the_box(kind: str) -> None:
    for seed in range(20):
        rng = Draws(seed)
        size = draw_size(kind, rng)
        parts = solids_of(build_parts(kind, size, rng), 0)
        reach = np.abs(parts.centers) + parts.sizes / 2
        assert (reach[:, :2] <= size[:2] / 2 - BOX_MARGIN / 2).all()
        assert (parts.centers[:, 2] + parts.sizes[:, 2] / 2 <= size[2]).all()
        assert (parts.sizes > 0).all()


@settings(max_examples=100)
@given(
    curvature=st.floats(-1 / 100, 1 / 100).filter(lambda c: c == 0.0 or abs(c) > 1e-5),
    s=st.floats(-150, 150),
    d=st.floats(-30, 30),
)
def test_road_coordinates_invert_the_road(curvature: float, s: float, d: float) -> None:
    road = Road(curvature)
    pose = road.pose(np.array([s]), np.array([d]))
    np.testing.assert_allclose(road.coordinates(pose[:, :2]), [[s, d]], atol=1e-5)


def test_traffic_keeps_to_the_left() -> None:
    scene = build_scene(Draws(11), 1.0)
    moving = [a for a in scene.actors if a.on_road and a.state == "moving" and a.kind in ("car", "truck", "bus")]
    assert len(moving) > 5
    for actor in moving:
        assert (actor.start[1] > 0) == (np.cos(actor.yaw) > 0)


def test_nothing_stands_in_anything_else() -> None:
    boxes = build_scene(Draws(5), 1.0).at(0.5).annotations
    gaps = np.linalg.norm(boxes.centers[:, None, :2] - boxes.centers[None, :, :2], axis=2)
    np.fill_diagonal(gaps, np.inf)
    assert (gaps > (boxes.sizes[:, None, 1] + boxes.sizes[None, :, 1]) / 2).all()


def test_a_point_ahead_of_a_camera_lands_in_its_middle() -> None:
    for camera in camera_rig():
        ahead = camera.cam2ego[:3, :3] @ np.array([0.0, 0.0, 20.0]) + camera.cam2ego[:3, 3]
        box = Annotations(
            ahead[None], np.full((1, 3), 0.01), np.zeros(1), np.zeros((1, 2)), np.zeros(1, int), np.zeros(1, int), ("",)
        )
        corners, inside = project_boxes(camera, box)
        assert inside.all()
        np.testing.assert_allclose(corners[0, :2], camera.cam2img[:2, 2], atol=0.5)


def test_distortion_follows_the_lens_model() -> None:
    """One point by hand: k1 alone moves a point along its radius, p1 alone bends y more than x."""
    point = np.array([[0.3, 0.4]])
    np.testing.assert_allclose(distorted(point, np.array([0.1, 0, 0, 0, 0])), point * 1.025)
    np.testing.assert_allclose(
        distorted(point, np.array([0, 0, 0.01, 0, 0])), point + np.array([[2 * 0.01 * 0.12, 0.01 * (0.25 + 0.32)]])
    )
