"""AWML's five-channel input of the calibration status classifier, step by step with OpenCV.

This is what the framework reference is computed with, and so it is written for likeness to AWML's transform
(CalibrationClassificationTransform in test mode), not for speed; the runtime has an implementation of its own. Two
differences, both where AWML's result is not determined or not there:

- Of two points at exactly the same depth the later one in the file wins (AWML: whichever the sort leaves last).
- Distortion may have 4, 5, 8, 12 or 14 coefficients, as T4 allows and OpenCV knows them (AWML: 5 only).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from shared.arrays import Float32, Float64, UInt8
from shared.lazy import lazy_import

cv2 = lazy_import("cv2", install="make setup")


def five_channels(
    image: UInt8,
    points: Float32,
    intrinsics: Float64,
    distortion: Float64,
    lidar2cam: Float64,
    *,
    max_depth: float,
    dilation_size: int,
) -> Float32:
    """The network's input for one camera-lidar pair.

    Args:
        image: (H, W, 3) uint8, blue, green, red.
        points: (N, >=4) float32; x, y, z [m] in the lidar frame, intensity 0-255.
        intrinsics: (3, 3), pixels.
        distortion: (K,) OpenCV's coefficients; empty or all zero: the image is straight.
        lidar2cam: (4, 4) calibration, right or wrong.
        max_depth: points as far as this, or farther, are left out [m].
        dilation_size: pixels that a point is widened by in each direction.

    Returns:
        (5, H, W) float32: blue, green, red, depth, intensity, all divided by 255.
    """
    straight, matrix = undistort(image, intrinsics, distortion)
    lidar = lidar_channels(
        points, lidar2cam, matrix, *image.shape[:2], max_depth=max_depth, dilation_size=dilation_size
    )
    channels = np.concatenate([straight.transpose(2, 0, 1).astype(np.float32), lidar])
    return np.asarray(channels / np.float32(255), np.float32)


def undistort(image: UInt8, intrinsics: Float64, distortion: Float64) -> tuple[UInt8, Float64]:
    """The image as a lens without distortion would see it, cut so that every pixel has content, and its intrinsics."""
    if not np.any(distortion):
        return image, intrinsics
    matrix = straight_intrinsics(intrinsics, distortion, (image.shape[1], image.shape[0]))
    return cv2.undistort(image, intrinsics, distortion, newCameraMatrix=matrix), matrix


def straight_intrinsics(intrinsics: Float64, distortion: Float64, size: tuple[int, int]) -> Float64:
    """Intrinsics (3, 3) of what `undistort` makes of images of this width and height."""
    return np.asarray(cv2.getOptimalNewCameraMatrix(intrinsics, distortion, size, 0.0, size)[0], np.float64)


def lidar_channels(
    points: Float32,
    lidar2cam: Float64,
    matrix: Float64,
    height: int,
    width: int,
    *,
    max_depth: float,
    dilation_size: int,
) -> Float32:
    """Depth and intensity of points as two images, see `five_channels` and `paint`; ``matrix``: of a straight image."""
    in_camera = points[:, :3].astype(np.float64) @ lidar2cam[:3, :3].T + lidar2cam[:3, 3]
    ahead = in_camera[:, 2] > 0
    in_camera, intensity = in_camera[ahead], points[ahead, 3]
    pixels = project(in_camera, matrix)
    return paint(pixels, in_camera[:, 2], intensity, height, width, max_depth=max_depth, dilation_size=dilation_size)


def project(in_camera: Float64, matrix: Float64) -> Float64:
    """(N, 2) pixels of points (N, 3) in front of a camera without distortion."""
    if not len(in_camera):
        return np.zeros((0, 2))
    pixels, _ = cv2.projectPoints(in_camera, np.zeros(3), np.zeros(3), matrix, np.zeros(5))
    return np.asarray(pixels, np.float64).reshape(-1, 2)


def paint(
    pixels: Float64,
    depths: Float64,
    intensities: Float32,
    height: int,
    width: int,
    *,
    max_depth: float,
    dilation_size: int,
) -> Float32:
    """Depth and intensity of projected points as two images, the nearest point in front.

    Args:
        pixels: (N, 2) column, row.
        depths: (N,) [m].
        intensities: (N,) 0-255.
        height, width: of the images.
        max_depth: becomes 255 in the depth image [m].
        dilation_size: see `five_channels`.

    Returns:
        (2, height, width) float32: 255 depth / max_depth, and intensity; 0 where there is no point.
    """
    column, row = pixels[:, 0], pixels[:, 1]
    seen = (
        (column >= 0) & (column <= width - 1) & (row >= 0) & (row <= height - 1) & (depths > 0) & (depths < max_depth)
    )
    order = np.flatnonzero(seen)
    order = order[np.argsort(-depths[order], kind="stable")]
    column, row = column[order].astype(np.int64), row[order].astype(np.int64)
    reach: npt.NDArray[Any] = np.arange(-dilation_size, dilation_size + 1)
    rows = np.broadcast_to(row[:, None, None] + reach[:, None], (len(order), len(reach), len(reach)))
    columns = np.broadcast_to(column[:, None, None] + reach, (len(order), len(reach), len(reach)))
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    which = np.broadcast_to(order[:, None, None], inside.shape)[inside]
    image = np.zeros((2, height, width), np.float32)
    # Written in order, far to near: the last one at a pixel stays.
    image[0, rows[inside], columns[inside]] = 255.0 * depths[which] / max_depth
    image[1, rows[inside], columns[inside]] = intensities[which]
    return image
