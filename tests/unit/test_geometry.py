"""Rotations, poses and boxes: round trips, and values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.geometry import (
    box_corners,
    box_footprints,
    count_points_in_boxes,
    invert_pose,
    matrix_to_quaternion,
    points_in_boxes,
    pose,
    quaternion_to_matrix,
    rotation_z,
    transform_points,
    wrap_angle,
    yaw_of,
)

ANGLES = st.floats(-10.0, 10.0)
QUATERNIONS = st.tuples(*[st.floats(-1.0, 1.0)] * 4).filter(lambda q: np.linalg.norm(q) > 1e-3)
VECTORS = st.tuples(*[st.floats(-100.0, 100.0)] * 3)


def test_quarter_turn_quaternion() -> None:
    """90 degrees about z: x goes to y, y to -x."""
    matrix = quaternion_to_matrix([np.sqrt(0.5), 0, 0, np.sqrt(0.5)])
    np.testing.assert_allclose(matrix, [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-15)


@given(QUATERNIONS)
def test_quaternion_round_trip(quaternion: tuple[float, ...]) -> None:
    matrix = quaternion_to_matrix(quaternion)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1.0)
    back = matrix_to_quaternion(matrix)
    assert back[0] >= 0
    np.testing.assert_allclose(quaternion_to_matrix(back), matrix, atol=1e-12)


@pytest.mark.parametrize("half_turn", [(0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0.6, 0, 0.8), (0, -0.6, 0.8, 0)])
def test_half_turns_survive_the_round_trip(half_turn: tuple[float, ...]) -> None:
    matrix = quaternion_to_matrix(half_turn)
    np.testing.assert_allclose(quaternion_to_matrix(matrix_to_quaternion(matrix)), matrix, atol=1e-12)


@pytest.mark.parametrize("quaternion", [(0, 0, 0, 0), (1, 2, 3), (np.nan, 0, 0, 1)])
def test_no_rotation_is_refused(quaternion: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="quaternion"):
        quaternion_to_matrix(quaternion)


@given(VECTORS, QUATERNIONS, VECTORS)
def test_inverse_pose_undoes_a_pose(
    translation: tuple[float, ...], rotation: tuple[float, ...], point: tuple[float, ...]
) -> None:
    matrix = pose(translation, rotation)
    there = transform_points(matrix, [point])
    np.testing.assert_allclose(transform_points(invert_pose(matrix), there), [point], atol=1e-9)


def test_a_pose_moves_after_it_turns() -> None:
    moved = transform_points(pose([10, 0, 1], rotation_z(np.pi / 2)), [[2, 0, 0]])
    np.testing.assert_allclose(moved, [[10, 2, 1]], atol=1e-12)


@given(ANGLES)
def test_yaw_of_a_rotation(angle: float) -> None:
    assert np.cos(yaw_of(rotation_z(angle)) - angle) == pytest.approx(1.0)
    wrapped = float(wrap_angle(angle))
    assert -np.pi <= wrapped < np.pi
    assert np.cos(wrapped - angle) == pytest.approx(1.0)


def test_corners_of_a_turned_box() -> None:
    """4 m long, 2 m wide, heading +y: the front left corner is at -x, +y."""
    corners = box_corners([[10, 20, 1]], [[4, 2, 3]], [np.pi / 2])[0]
    np.testing.assert_allclose(corners[0], [9, 22, -0.5], atol=1e-12)
    np.testing.assert_allclose(corners[:4, 2], -0.5)
    np.testing.assert_allclose(corners[4:, 2], 2.5)
    np.testing.assert_allclose(box_footprints([[10, 20, 1]], [[4, 2, 3]], [np.pi / 2])[0], corners[:4, :2])
    x, y = corners[:4, 0], corners[:4, 1]
    area = 0.5 * np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)
    assert area == pytest.approx(8.0), "counter-clockwise, length times width"


def test_points_on_faces_are_inside() -> None:
    points = np.array([[2, 0, 0], [2.001, 0, 0], [0, 1, 0], [0, -1.001, 0], [0, 0, 0.5], [np.nan, 0, 0]], np.float32)
    assert points_in_boxes(points, [[0, 0, 0]], [[4, 2, 1]], [0.0])[0].tolist() == [0, 2, 4]


@given(st.integers(0, 2**32 - 1))
def test_counts_agree_with_half_spaces(seed: int) -> None:
    """Independent rule: inside means on the inner side of all six faces, which come from the corners."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-6, 6, (200, 3))
    centers, sizes, yaws = rng.uniform(-3, 3, (3, 3)), rng.uniform(0.5, 6, (3, 3)), rng.uniform(-4, 4, 3)
    expected = []
    for corners in box_corners(centers, sizes, yaws):
        inside = np.ones(len(points), bool)
        for a, b, c in ((0, 1, 4), (1, 2, 5), (2, 3, 6), (3, 0, 7), (0, 3, 1), (4, 5, 7)):
            normal = np.cross(corners[b] - corners[a], corners[c] - corners[a])
            inner = (corners.mean(axis=0) - corners[a]) @ normal
            inside &= ((points - corners[a]) @ normal) * np.sign(inner) >= 0
        expected.append(int(inside.sum()))
    assert count_points_in_boxes(points, centers, sizes, yaws).tolist() == expected
