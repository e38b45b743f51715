"""Frames of the report as data: points that unpack to what they were, boxes on cameras where OpenCV sees them."""

from __future__ import annotations

import base64
import re
import zlib

import cv2
import numpy as np
import pytest

from evaluator.report.blocks import Explorer
from evaluator.report.camera_views import outlines
from evaluator.report.scene import cloud, numbers, title_of
from shared.data.types import Camera
from shared.geometry import box_corners, invert_pose, pose, rotation_z


def _unpacked(packed: dict[str, object]) -> np.ndarray:
    steps = np.frombuffer(zlib.decompress(base64.b64decode(str(packed["data"]))), "<i2")
    return steps.reshape(3, -1).T / 100


def test_points_survive_to_half_a_centimeter() -> None:
    points = np.random.default_rng(0).normal(0, 40, (2000, 3))
    packed = cloud(points, 5000)
    found = _unpacked(packed)
    assert packed["count"] == len(found) == 2000
    for wanted in points[:50]:
        assert np.abs(found - wanted).max(axis=1).min() <= 0.005 + 1e-9


def test_of_many_points_the_lonely_ones_are_kept() -> None:
    rng = np.random.default_rng(1)
    crowd, lonely = rng.normal(0, 1, (50_000, 3)), np.array([[80.0, 10.0, 1.0], [-60.0, 5.0, 2.0], [1000.0, 0.0, 0.0]])
    found = _unpacked(cloud(np.concatenate([crowd, lonely]), 3000))
    assert 500 < len(found) <= 3000
    for point in lonely[:2]:
        assert (found == point).all(axis=1).any()
    assert np.abs(found).max() < 100, "beyond the reach of the format, nothing wraps around"


def _camera(distortion: list[float]) -> Camera:
    looks_ahead = np.array([[0.0, -1, 0, 0], [0, 0, -1, 1.5], [1, 0, 0, -1.0], [0, 0, 0, 1]])
    intrinsics = np.array([[600.0, 0, 480], [0, 590.0, 300], [0, 0, 1]])
    return Camera(None, intrinsics, np.array(distortion), np.eye(4), looks_ahead)


@pytest.mark.parametrize("distortion", [[], [-0.2, 0.05, 0.001, -0.001, 0.01]], ids=["pinhole", "lens"])
def test_boxes_are_drawn_where_opencv_sees_their_corners(distortion: list[float]) -> None:
    camera, lidar2ego = _camera(distortion), pose([1.0, 0.2, 1.8], rotation_z(0.1))
    boxes = (np.array([[20.0, 2, 1], [-20, 0, 1]]), np.array([[4.0, 2, 1.6], [4, 2, 1.6]]), np.array([0.4, 0.0]))
    drawn = outlines(camera, invert_pose(lidar2ego), (960, 600), boxes)
    assert [row for row, _ in drawn] == [0], "what is behind the camera is not drawn"
    ends = np.array([[float(n) for n in pair.split()] for pair in re.split("[ML]", drawn[0][1])[1:]])
    assert len(ends) == 2 * 14
    whole = camera.lidar2cam @ invert_pose(lidar2ego)
    corners = box_corners(*boxes)[0]
    expected = cv2.projectPoints(
        corners, cv2.Rodrigues(whole[:3, :3])[0], whole[:3, 3], camera.intrinsics, camera.distortion
    )
    for corner in expected[0][:, 0]:
        assert np.abs(ends - corner).max(axis=1).min() <= 0.5 + 1e-6


def test_a_box_beside_the_camera_is_cut_at_it() -> None:
    boxes = (np.array([[3.0, 0.8, 1.0]]), np.array([[8.0, 1.0, 1.0]]), np.array([0.0]))
    ((_, path),) = outlines(_camera([]), np.eye(4), (960, 600), boxes)
    ends = [float(n) for n in re.findall(r"-?\d+", path)]
    assert max(map(abs, ends)) < 3000


def test_titles_say_drive_and_time() -> None:
    assert title_of("scene-0103", 1_700_000_000.25) == "scene-0103, 2023-11-14 22:13:20.2 UTC"
    assert title_of("log 7", 12.5) == "log 7, 12.50 s"
    assert title_of("images", 0) == "images"
    assert title_of("", 12.5) == "12.50 s"
    assert title_of("eeeca8d8d3cc76bb8fea82fd85b59f75", 0) == "eeeca8d8"


def test_numbers_are_short() -> None:
    assert str(numbers([[1.0, 2.346], [-0.0, 7.0]], 2)) == "[1, 2.35, 0, 7]"
    assert numbers([np.nan, np.inf], 2) == [None, None]


def test_no_name_ends_the_data() -> None:
    text = Explorer("k", {"title": "</script><script>alert(1)</script>&<!--"}).json()
    assert not set("<>&") & set(text)
