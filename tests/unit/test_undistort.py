"""Undistortion: OpenCV's result, and that lidar points land where the straight image shows their objects."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from runtime.models.calibration.project import project
from runtime.models.calibration.undistort import undistort, undistortion_map

HEIGHT, WIDTH = 300, 480
INTRINSICS = np.array([[300.0, 0, 243.0], [0, 302.0, 148.0], [0, 0, 1]])
COEFFICIENTS = {
    4: [-0.25, 0.06, 0.001, -0.0005],
    5: [-0.25, 0.06, 0.001, -0.0005, -0.004],
    8: [0.3, 0.02, 0.0008, 0.0003, 0.001, 0.55, 0.04, 0.002],
    12: [-0.2, 0.05, 0.001, 0.0004, -0.003, 0.02, 0.01, 0.001, 0.002, -0.001, 0.001, 0.0005],
    14: [-0.2, 0.05, 0.001, 0.0004, -0.003, 0.02, 0.01, 0.001, 0.002, -0.001, 0.001, 0.0005, 0.01, -0.015],
}


@pytest.mark.parametrize("count", COEFFICIENTS)
def test_equals_opencv(count: int) -> None:
    distortion = np.array(COEFFICIENTS[count])
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    mapping = undistortion_map(INTRINSICS, distortion, HEIGHT, WIDTH)
    size = (WIDTH, HEIGHT)
    matrix, _ = cv2.getOptimalNewCameraMatrix(INTRINSICS, distortion, size, 0.0, size)
    np.testing.assert_array_equal(mapping.intrinsics, matrix)
    np.testing.assert_array_equal(
        undistort(image, mapping), cv2.undistort(image, INTRINSICS, distortion, newCameraMatrix=matrix)
    )


@pytest.mark.parametrize("count", COEFFICIENTS)
def test_points_land_on_what_they_were_measured_from(count: int) -> None:
    """Dots drawn where the bent lens shows 3D points lie, after undistortion, where those points are projected to."""
    distortion = np.array(COEFFICIENTS[count])
    grid = np.array([[x, y, 10.0] for x in (-4.0, -1.5, 1.5, 4.0) for y in (-2.5, 0.5, 2.5)])
    bent, _ = cv2.projectPoints(grid, np.zeros(3), np.zeros(3), INTRINSICS, distortion)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    image = np.zeros((HEIGHT, WIDTH))
    for u, v in bent.reshape(-1, 2):
        image += 255 * np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / (2 * 2.0**2))
    mapping = undistortion_map(INTRINSICS, distortion, HEIGHT, WIDTH)
    gray = np.clip(image, 0, 255).astype(np.uint8)
    straight = undistort(np.dstack([gray] * 3), mapping)[..., 0].astype(float)
    points = np.column_stack([grid, np.ones(len(grid))]).astype(np.float32)
    seen = project(points, np.eye(4), mapping.intrinsics, HEIGHT, WIDTH, 128.0)
    assert len(seen) >= 8
    for column, row in zip(seen.columns, seen.rows, strict=True):
        window = straight[max(row - 6, 0) : row + 8, max(column - 6, 0) : column + 8]
        weights = window / window.sum()
        y = (weights.sum(axis=1) * np.arange(max(row - 6, 0), max(row - 6, 0) + window.shape[0])).sum()
        x = (weights.sum(axis=0) * np.arange(max(column - 6, 0), max(column - 6, 0) + window.shape[1])).sum()
        # Pixels are rounded down, so the truth lies up to one pixel further.
        if 8 < column < WIDTH - 9 and 8 < row < HEIGHT - 9:
            assert -0.3 < x - column < 1.3
            assert -0.3 < y - row < 1.3


@pytest.mark.parametrize("distortion", [[], [0.0] * 5, [0.0] * 14])
def test_straight_images_stay_as_they_are(distortion: list[float]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    mapping = undistortion_map(INTRINSICS, np.array(distortion), 20, 30)
    assert undistort(image, mapping) is image
    np.testing.assert_array_equal(mapping.intrinsics, INTRINSICS)


def test_the_map_of_a_camera_outlives_the_input_that_it_was_made_from() -> None:
    intrinsics = np.array([[800.0, 0.0, 320.0], [0.0, 800.0, 240.0], [0.0, 0.0, 1.0]])
    before = intrinsics.copy()
    mapping = undistortion_map(intrinsics, np.zeros(5), 480, 640)
    intrinsics[:] = 0
    np.testing.assert_array_equal(mapping.intrinsics, before)
