"""Elementary functions that give the same bits on every processor, NumPy and C library.

IEEE 754 fixes the result of an addition, multiplication, division and square root, not that of a sine, an exponential
or a matrix product: those differ in their last bit from one library or instruction set to the next, and a point on the
edge of its grid cell then falls on the other side. So everything the generator computes goes through those four,
element by element, in an order that is written down here. Results are within 1e-15 of the true values, of size 1 or
relative.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# Pi / 2 and log 2 in two parts each: the first has so few bits that its multiples up to 2^20 are exact.
_HALF_PI = (1.57079632673412561417e00, 6.07710050650619224932e-11)
_LOG_2 = (6.93147180369123816490e-01, 1.90821492927058770002e-10)
_SINE = [(-1) ** i / factorial(2 * i + 1) for i in range(9)]
_COSINE = [(-1) ** i / factorial(2 * i) for i in range(10)]
_EXPONENTIAL = [1 / factorial(i) for i in range(15)]
_AREA_TANGENT = [1 / (2 * i + 1) for i in range(12)]
_ARC_TANGENT = [(-1) ** i / (2 * i + 1) for i in range(13)]


def sin_cos(angles: ArrayLike) -> tuple[Floats, Floats]:
    """Sines and cosines of angles [rad] of up to a million."""
    x = np.asarray(angles, np.float64)
    quarters = np.round(x / (np.pi / 2))
    rest = (x - quarters * _HALF_PI[0]) - quarters * _HALF_PI[1]
    square = rest * rest
    sine, cosine = rest * _polynomial(square, _SINE), _polynomial(square, _COSINE)
    quadrant = quarters.astype(np.int64) & 3
    odd = (quadrant & 1) == 1
    first, second = np.where(odd, cosine, sine), np.where(odd, sine, cosine)
    return np.where(quadrant >= 2, -first, first), np.where((quadrant + 1) & 2, -second, second)


def exp(values: ArrayLike) -> Floats:
    """Exponentials of values between -700 and 700."""
    x = np.asarray(values, np.float64)
    doublings = np.round(x / _LOG_2[0])
    rest = (x - doublings * _LOG_2[0]) - doublings * _LOG_2[1]
    return np.ldexp(_polynomial(rest, _EXPONENTIAL), doublings.astype(np.int32))


def log(values: ArrayLike) -> Floats:
    """Natural logarithms of positive values."""
    mantissa, exponent = np.frexp(np.asarray(values, np.float64))
    small = mantissa < 0.7071
    mantissa, exponent = np.where(small, 2 * mantissa, mantissa), exponent - small
    ratio = (mantissa - 1) / (mantissa + 1)
    series = 2 * ratio * _polynomial(ratio * ratio, _AREA_TANGENT)
    return np.asarray(exponent * _LOG_2[0] + (exponent * _LOG_2[1] + series), np.float64)


def arctan2(y: ArrayLike, x: ArrayLike) -> Floats:
    """Angles of points (x, y), in (-pi, pi]; 0 at the origin."""
    right, up = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
    across, along = np.abs(up), np.abs(right)
    larger = np.maximum(across, along)
    tangent = np.minimum(across, along) / np.where(larger == 0.0, 1.0, larger)
    for _ in range(2):  # to the tangent of a quarter of the angle
        tangent = tangent / (1 + np.sqrt(1 + tangent * tangent))
    angle = 4 * tangent * _polynomial(tangent * tangent, _ARC_TANGENT)
    angle = np.where(across > along, np.pi / 2 - angle, angle)
    angle = np.where(right < 0, np.pi - angle, angle)
    return np.asarray(np.where(up < 0, -angle, angle), np.float64)


def hypot(x: ArrayLike, y: ArrayLike) -> Floats:
    """Lengths of (x, y)."""
    first, second = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return np.asarray(np.sqrt(first * first + second * second))


def dot(first: Floats, second: Floats) -> Floats:
    """Products of vectors (..., n) and (..., n), summed from the first component to the last."""
    total = first[..., 0] * second[..., 0]
    for axis in range(1, first.shape[-1]):
        total = total + first[..., axis] * second[..., axis]
    return np.asarray(total)


def mapped(matrix: Floats, vectors: Floats) -> Floats:
    """Vectors (..., n) mapped by a matrix (m, n): (..., m)."""
    return np.stack([dot(vectors, row) for row in matrix], axis=-1)


def product(*matrices: Floats) -> Floats:
    """Product of matrices (m, k), (k, n), …, from the left."""
    result = matrices[0]
    for matrix in matrices[1:]:
        result = mapped(matrix.T, result)
    return result


def unit(vectors: Floats) -> Floats:
    """Vectors (..., n) divided by their lengths."""
    return np.asarray(vectors / np.sqrt(dot(vectors, vectors))[..., None])


def inverse_pose(pose: Floats) -> Floats:
    """Inverse of a rigid pose (4, 4)."""
    inverse = np.eye(4)
    inverse[:3, :3] = pose[:3, :3].T
    inverse[:3, 3] = -mapped(pose[:3, :3].T, pose[:3, 3])
    return inverse


def rotation_z(yaw: float) -> Floats:
    """Rotation (3, 3) about +z, counter-clockwise seen from above [rad]."""
    sine, cosine = (float(value) for value in sin_cos(yaw))
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def _polynomial(x: Floats, coefficients: Sequence[float]) -> Floats:
    """Sum of the coefficients times the powers of x, by Horner's rule."""
    result = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        result *= x
        result += coefficient
    return result
