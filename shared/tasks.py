"""What models answer with, per task: plain NumPy containers, the same for every tool."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Boxes3D:
    """3D boxes of one frame, in the lidar frame of the sample (T4's LIDAR_CONCAT: base_link). Rows are parallel.

    Attributes:
        centers: (N, 3) float32, x, y, z of the *gravity* centre in metres, never of the bottom face.
        sizes: (N, 3) float32, length (along the heading), width, height in metres.
        yaws: (N,) float32, radians, counter-clockwise from +x.
        velocities: (N, 2) float32, m/s along x and y of the lidar frame, NaN where unknown.
        labels: (N,) int64, index into the class list.
        scores: (N,) float32 in [0, 1]; ones for ground truth.
        num_points: (N,) int64, lidar points inside (ground truth); zeros for predictions.
    """

    centers: Float32
    sizes: Float32
    yaws: Float32
    velocities: Float32
    labels: Int64
    scores: Float32
    num_points: Int64

    def __post_init__(self) -> None:
        count = len(self.centers)
        shapes = {"centers": (count, 3), "sizes": (count, 3), "velocities": (count, 2)}
        for field in fields(self):
            expected = shapes.get(field.name, (count,))
            actual = getattr(self, field.name).shape
            if actual != expected:
                raise ValueError(f"Boxes3D.{field.name} has shape {actual}, expected {expected}")

    def __len__(self) -> int:
        return len(self.centers)

    def select(self, index: npt.NDArray[np.bool_] | npt.NDArray[np.integer]) -> Boxes3D:
        """The boxes at ``index``, a boolean mask (N,) or integer positions (K,)."""
        return Boxes3D(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    @staticmethod
    def empty() -> Boxes3D:
        """No boxes."""
        return Boxes3D.build(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0))

    @staticmethod
    def build(
        centers: npt.ArrayLike,
        sizes: npt.ArrayLike,
        yaws: npt.ArrayLike,
        velocities: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
        scores: npt.ArrayLike | None = None,
        num_points: npt.ArrayLike | None = None,
    ) -> Boxes3D:
        """Boxes from anything array-like; velocities default to NaN, labels and num_points to 0, scores to 1."""
        centers_array = np.asarray(centers, np.float32).reshape(-1, 3)
        count = len(centers_array)

        def column(values: npt.ArrayLike | None, default: float, dtype: type[np.generic]) -> npt.NDArray[Any]:
            return np.full(count, default, dtype) if values is None else np.asarray(values, dtype).reshape(count)

        return Boxes3D(
            centers=centers_array,
            sizes=np.asarray(sizes, np.float32).reshape(count, 3),
            yaws=np.asarray(yaws, np.float32).reshape(count),
            velocities=(
                np.full((count, 2), np.nan, np.float32)
                if velocities is None
                else np.asarray(velocities, np.float32).reshape(count, 2)
            ),
            labels=column(labels, 0, np.int64),
            scores=column(scores, 1.0, np.float32),
            num_points=column(num_points, 0, np.int64),
        )
