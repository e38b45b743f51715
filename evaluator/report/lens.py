"""Projects points into the image of a camera with lens distortion."""

from __future__ import annotations

import numpy as np

from shared.arrays import Float64

# k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4, tilt around x, tilt around y [rad]; models with fewer end earlier.
_COEFFICIENTS = 14


def project_points(points: Float64, intrinsics: Float64, distortion: Float64) -> Float64:
    """Pixels of points, through OpenCV's lens model (its documentation, "Camera Calibration and 3D Reconstruction").

    Args:
        points: (N, 3) in the camera's frame (right, down, ahead) [m], all of them ahead.
        intrinsics: (3, 3).
        distortion: (K,) OpenCV's coefficients, K up to 14; empty for none.

    Returns:
        (N, 2) right, down [pixels]. Far outside the image the model is meaningless.
    """
    k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4, tilt_x, tilt_y = np.pad(
        distortion, (0, _COEFFICIENTS - len(distortion))
    )
    x, y = points[:, 0] / points[:, 2], points[:, 1] / points[:, 2]
    r2 = x * x + y * y
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    bent = np.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) + r2 * (s1 + r2 * s2),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y + r2 * (s3 + r2 * s4),
            np.ones_like(x),
        ]
    )
    seen = _tilt(tilt_x, tilt_y) @ bent
    straight = seen[:2] / seen[2]
    pixels: Float64 = (intrinsics[:2, :2] * np.eye(2)) @ straight + intrinsics[:2, 2:]
    return pixels.T


def _tilt(around_x: float, around_y: float) -> Float64:
    """(3, 3) the homography of a sensor that is tilted against the lens."""
    sin_x, cos_x, sin_y, cos_y = np.sin(around_x), np.cos(around_x), np.sin(around_y), np.cos(around_y)
    rotation = np.array([[cos_y, 0, -sin_y], [0, 1, 0], [sin_y, 0, cos_y]]) @ np.array(
        [[1, 0, 0], [0, cos_x, sin_x], [0, -sin_x, cos_x]]
    )
    onto_sensor = np.array([[rotation[2, 2], 0, -rotation[0, 2]], [0, rotation[2, 2], -rotation[1, 2]], [0, 0, 1]])
    tilt: Float64 = onto_sensor @ rotation
    return tilt
