"""Miscalibrations made on purpose: what turns a calibrated camera-lidar pair into a miscalibrated one.

Two laws. Every magnitude is drawn from a normal distribution centered at the lower bound of its range, with two thirds
of the range as standard deviation, truncated to the range: small errors, the hard ones, are the most frequent.

- ``awml``: rotation about an axis in any direction, translation in any direction, on the lidar's side:
  ``lidar2cam @ noise``. The law that AWML trains and tests with.
- ``autoware_ml``: one angle and one offset per axis of the *camera's* frame, each of either sign:
  ``noise @ lidar2cam``. The law of AWML's successor, with its ranges.

AWML draws new ones in every run, so that no two evaluations see the same samples. Here they depend on a seed and the
sample's name alone, not on the rest of the data set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from shared.arrays import Float64
from shared.errors import ConfigError

if TYPE_CHECKING:
    from shared.config.model_sections import Miscalibration as Section


# Ranges in degrees and meters.
_AWML_ROTATION = (1.0, 10.0)
_AWML_TRANSLATION = (0.05, 0.20)
# Per axis of the camera frame (x right, y down, z forward): magnitudes of negative values, and of positive ones.
_SUCCESSOR_ROTATION: Mapping[str, tuple[tuple[float, float], tuple[float, float]]] = MappingProxyType(
    {"x": ((0.2, 0.4), (0.2, 0.4)), "y": ((0.2, 0.4), (0.2, 0.4)), "z": ((4.2, 8.4), (4.2, 8.4))}
)
_SUCCESSOR_TRANSLATION: Mapping[str, tuple[tuple[float, float], tuple[float, float]]] = MappingProxyType(
    {"x": ((0.22, 0.44), (0.22, 0.44)), "y": ((0.12, 0.24), (0.06, 0.12)), "z": ((0.24, 0.48), (0.54, 1.08))}
)
_STANDARD_DEVIATION = 2 / 3  # of the range

PRESETS = ("awml", "autoware_ml")


@dataclass(frozen=True)
class Miscalibration:
    """How calibrations are disturbed: the deploy config's ``data.miscalibration`` as a plain value.

    Attributes:
        preset: one of `PRESETS`.
        seed: together with a sample's name, it determines the sample's disturbance.
    """

    preset: str = "awml"
    seed: int = 0


#: Not ``Section | ...``: this is evaluated when the module is imported, by Python 3.10 too.
Law = Union["Section", Miscalibration]


@dataclass(frozen=True)
class Disturbance:
    """One disturbance.

    Attributes:
        matrix: (4, 4) the noise.
        on_lidar_side: whether it is ``lidar2cam @ matrix``; otherwise ``matrix @ lidar2cam``.
        rotation_deg: angle of the whole rotation, degrees.
        translation_m: length of the translation, meters.
    """

    matrix: Float64
    on_lidar_side: bool
    rotation_deg: float
    translation_m: float

    def apply(self, lidar2cam: Float64) -> Float64:
        """(4, 4) the wrong calibration."""
        return lidar2cam @ self.matrix if self.on_lidar_side else self.matrix @ lidar2cam

    def as_json(self) -> dict[str, Any]:
        """The disturbance as an evaluation records it."""
        return {
            "matrix": self.matrix.tolist(),
            "on_lidar_side": self.on_lidar_side,
            "rotation_deg": self.rotation_deg,
            "translation_m": self.translation_m,
        }


def disturbance_of(law: Law, name: str) -> Disturbance:
    """The disturbance of the sample called ``name``: the same for the same law and name.

    Raises:
        ConfigError: no such preset.
    """
    digest = hashlib.sha256(f"{law.preset}/{law.seed}/{name}".encode()).digest()
    return draw_disturbance(law.preset, np.random.default_rng(np.frombuffer(digest, np.uint32)))


def draw_disturbance(preset: str, rng: np.random.Generator) -> Disturbance:
    """Draw a disturbance.

    Raises:
        ConfigError: no such preset.
    """
    if preset == "awml":
        angle = _truncated_normal(rng, *_AWML_ROTATION)
        length = _truncated_normal(rng, *_AWML_TRANSLATION)
        rotation = rotation_about(_direction(rng), np.deg2rad(angle))
        return _disturbance(rotation, length * _direction(rng), on_lidar_side=True)
    if preset == "autoware_ml":
        rotation = np.eye(3)
        for axis, ranges in enumerate(_SUCCESSOR_ROTATION.values()):
            # About fixed axes, x first.
            rotation = rotation_about(np.eye(3)[axis], np.deg2rad(_of_either_sign(rng, *ranges))) @ rotation
        offset = np.array([_of_either_sign(rng, *ranges) for ranges in _SUCCESSOR_TRANSLATION.values()])
        return _disturbance(rotation, offset, on_lidar_side=False)
    raise ConfigError(
        f"unknown preset '{preset}'", where="data.miscalibration.preset", hint=f"there are: {', '.join(PRESETS)}"
    )


def rotation_about(axis: Float64, angle: float) -> Float64:
    """(3, 3) rotation about a unit vector (3,) by ``angle`` radians (Rodrigues' formula)."""
    x, y, z = axis
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def _disturbance(rotation: Float64, translation: Float64, *, on_lidar_side: bool) -> Disturbance:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = translation
    cosine = np.clip((np.trace(rotation) - 1) / 2, -1.0, 1.0)
    return Disturbance(matrix, on_lidar_side, float(np.rad2deg(np.arccos(cosine))), float(np.linalg.norm(translation)))


def _truncated_normal(rng: np.random.Generator, low: float, high: float) -> float:
    """A draw from the normal distribution at ``low``, truncated to [low, high], by inverting its distribution."""
    normal = NormalDist(low, (high - low) * _STANDARD_DEVIATION)
    share = normal.cdf(low) + rng.random() * (normal.cdf(high) - normal.cdf(low))
    return float(np.clip(normal.inv_cdf(share), low, high))


def _of_either_sign(rng: np.random.Generator, negative: tuple[float, float], positive: tuple[float, float]) -> float:
    if rng.random() < 0.5:
        return -_truncated_normal(rng, *negative)
    return _truncated_normal(rng, *positive)


def _direction(rng: np.random.Generator) -> Float64:
    """(3,) unit vector, uniform on the sphere: its z is uniform in [-1, 1]."""
    z = rng.uniform(-1.0, 1.0)
    azimuth = rng.uniform(0.0, 2 * np.pi)
    radius = np.sqrt(1 - z * z)
    return np.array([radius * np.cos(azimuth), radius * np.sin(azimuth), z])
