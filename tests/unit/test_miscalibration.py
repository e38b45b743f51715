"""Disturbances of calibrations: their ranges, where they act, and that a sample's name decides them."""

from __future__ import annotations

import numpy as np
import pytest

from shared.data.miscalibration import (
    PRESETS,
    Miscalibration,
    disturbance_of,
    draw_disturbance,
    rotation_about,
)
from shared.errors import ConfigError

DRAWS = 2000
ROTATION, TRANSLATION = 1.1886671426454793, 0.06452466721816698


@pytest.fixture(scope="module", params=PRESETS)
def drawn(request):
    rng = np.random.default_rng(0)
    return request.param, [draw_disturbance(request.param, rng) for _ in range(DRAWS)]


def test_every_disturbance_is_a_rigid_motion(drawn) -> None:
    for disturbance in drawn[1][:200]:
        rotation = disturbance.matrix[:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1)
        np.testing.assert_array_equal(disturbance.matrix[3], [0, 0, 0, 1])


def test_awml_ranges_and_law() -> None:
    rng = np.random.default_rng(1)
    drawn = [draw_disturbance("awml", rng) for _ in range(DRAWS)]
    angles = np.array([d.rotation_deg for d in drawn])
    lengths = np.array([d.translation_m for d in drawn])
    assert angles.min() >= 1 - 1e-6
    assert angles.max() <= 10 + 1e-6
    assert lengths.min() >= 0.05 - 1e-9
    assert lengths.max() <= 0.2 + 1e-9
    # Half of a normal at 1 degree with 6 degrees of deviation, cut at 1.5 deviations: its mean is 1 + 6 * 0.6236.
    phi = np.exp(-1.125) / np.sqrt(2 * np.pi)
    expected = 1 + 6 * ((1 / np.sqrt(2 * np.pi) - phi) / 0.4331927987)
    assert angles.mean() == pytest.approx(expected, abs=0.2)
    # Axes and directions point everywhere.
    axes = np.array([[m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]] for m in (d.matrix for d in drawn)])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    for vectors in (axes, np.array([d.matrix[:3, 3] / d.translation_m for d in drawn])):
        np.testing.assert_allclose(vectors.mean(axis=0), 0, atol=0.06)
        np.testing.assert_allclose((vectors**2).mean(axis=0), 1 / 3, atol=0.03)


def test_successor_ranges_per_axis_of_the_camera() -> None:
    rng = np.random.default_rng(2)
    drawn = np.array([draw_disturbance("autoware_ml", rng).matrix for _ in range(DRAWS)])
    x, y, z = drawn[:, :3, 3].T
    assert (np.abs(x) >= 0.22).all()
    assert (np.abs(x) <= 0.44).all()
    assert y.min() < -0.12 + 0.01
    assert y.min() >= -0.24
    assert 0.06 <= y[y > 0].min() <= y.max() <= 0.12
    assert 0.54 <= z[z > 0].min() <= z.max() <= 1.08
    assert -0.48 <= z.min() <= z[z < 0].max() <= -0.24
    roll_about_the_optical_axis = np.rad2deg(np.arctan2(drawn[:, 1, 0], drawn[:, 0, 0]))
    assert (np.abs(roll_about_the_optical_axis) >= 4.2 - 1e-6).all()
    assert (np.abs(roll_about_the_optical_axis) <= 8.4 + 1e-6).all()
    tilt = np.rad2deg(np.arcsin(-drawn[:, 2, 0]))
    assert (np.abs(tilt) >= 0.2 - 1e-6).all()
    assert (np.abs(tilt) <= 0.4 + 1e-6).all()
    for values in (x, roll_about_the_optical_axis, tilt):
        assert 0.45 < (values > 0).mean() < 0.55


def test_noise_acts_on_the_side_that_the_preset_says() -> None:
    lidar2cam = np.eye(4)
    lidar2cam[:3, :3] = rotation_about(np.array([0.0, 0.0, 1.0]), 1.0)
    lidar2cam[:3, 3] = [3, 2, 1]
    rng = np.random.default_rng(0)
    lidar_side, camera_side = draw_disturbance("awml", rng), draw_disturbance("autoware_ml", rng)
    np.testing.assert_allclose(lidar_side.apply(lidar2cam), lidar2cam @ lidar_side.matrix)
    np.testing.assert_allclose(camera_side.apply(lidar2cam), camera_side.matrix @ lidar2cam)


def test_name_seed_and_preset_decide() -> None:
    first = disturbance_of(Miscalibration(), "scene/0/CAM_FRONT")
    again = disturbance_of(Miscalibration(), "scene/0/CAM_FRONT")
    np.testing.assert_array_equal(first.matrix, again.matrix)
    others = [
        disturbance_of(Miscalibration(), "scene/1/CAM_FRONT"),
        disturbance_of(Miscalibration(seed=1), "scene/0/CAM_FRONT"),
        disturbance_of(Miscalibration(preset="autoware_ml"), "scene/0/CAM_FRONT"),
    ]
    for other in others:
        assert np.abs(other.matrix - first.matrix).max() > 1e-4


def test_the_draw_does_not_change_with_versions() -> None:
    """Recorded evaluations must stay comparable: these are the numbers of the first version."""
    disturbance = disturbance_of(Miscalibration(), "scene/0/CAM_FRONT")
    assert disturbance.as_json()["rotation_deg"] == pytest.approx(ROTATION, abs=1e-9)
    assert disturbance.as_json()["translation_m"] == pytest.approx(TRANSLATION, abs=1e-9)


def test_rotation_about_an_axis() -> None:
    turned = rotation_about(np.array([0.0, 0.0, 1.0]), np.pi / 2) @ [1, 0, 0]
    np.testing.assert_allclose(turned, [0, 1, 0], atol=1e-12)


def test_unknown_preset() -> None:
    with pytest.raises(ConfigError, match="awml, autoware_ml"):
        disturbance_of(Miscalibration(preset="rocks"), "x")
