"""Undistortion of camera images, with OpenCV.

The result is cut to the largest upright rectangle in which every pixel has content (OpenCV's alpha 0), and scaled back
to the size of the image: AWML's transform and Autoware's node do the same. Where each pixel comes from depends on the
camera only, so it is computed once a camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shared.arrays import Float64, UInt8
from shared.lazy import lazy_import

cv2 = lazy_import("cv2", install="make setup")


@dataclass(frozen=True)
class UndistortionMap:
    """Where each pixel of a camera's undistorted images comes from.

    Attributes:
        intrinsics: (3, 3) of the undistorted image, which has no distortion left.
        source: (H, W, 2) int16, the pixel that each pixel comes from, rounded down; None: there is no distortion.
        fraction: (H, W) uint16, the rest in steps of 1/32 pixel, as OpenCV interpolates.
    """

    intrinsics: Float64
    source: npt.NDArray[np.int16] | None
    fraction: npt.NDArray[np.uint16] | None


def undistortion_map(intrinsics: Float64, distortion: Float64, height: int, width: int) -> UndistortionMap:
    """The map of a camera.

    Args:
        intrinsics: (3, 3), pixels.
        distortion: (K,), K one of 0, 4, 5, 8, 12, 14: OpenCV's coefficients k1, k2, p1, p2, k3, ...
        height, width: of the images.
    """
    if not np.any(distortion):
        # A copy: maps are kept, and the arrays of an input are not.
        return UndistortionMap(intrinsics.copy(), None, None)
    size = (width, height)
    matrix, _ = cv2.getOptimalNewCameraMatrix(intrinsics, distortion, size, 0.0, size)
    source, fraction = cv2.initUndistortRectifyMap(intrinsics, distortion, None, matrix, size, cv2.CV_16SC2)
    return UndistortionMap(np.asarray(matrix, np.float64), source, fraction)


def undistort(image: UInt8, mapping: UndistortionMap) -> UInt8:
    """(H, W, 3) uint8 image without distortion."""
    if mapping.source is None:
        return image
    undistorted: UInt8 = cv2.remap(image, mapping.source, mapping.fraction, cv2.INTER_LINEAR)
    return undistorted
