"""3D detection: oriented boxes in the lidar frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from shared.tasks import Rows, RowsTask, filled_column

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Boxes3D(Rows):
    """3D boxes of one frame, in the lidar frame of the sample (T4's LIDAR_CONCAT: base_link). Rows are parallel.

    Attributes:
        centers: (N, 3) float32, x, y, z of the *gravity* center in meters, never of the bottom face.
        sizes: (N, 3) float32, length (along the heading), width, height in meters.
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

    WIDTHS: ClassVar[Mapping[str, int | None]] = {"centers": 3, "sizes": 3, "velocities": 2}

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

        return Boxes3D(
            centers=centers_array,
            sizes=np.asarray(sizes, np.float32).reshape(count, 3),
            yaws=np.asarray(yaws, np.float32).reshape(count),
            velocities=(
                np.full((count, 2), np.nan, np.float32)
                if velocities is None
                else np.asarray(velocities, np.float32).reshape(count, 2)
            ),
            labels=filled_column(count, labels, 0, np.int64),
            scores=filled_column(count, scores, 1.0, np.float32),
            num_points=filled_column(count, num_points, 0, np.int64),
        )


class Detection3D(RowsTask[Boxes3D]):
    """3D detection."""

    container = Boxes3D
    view = "lidar_frame"

    def empty(self) -> Boxes3D:
        """No boxes."""
        return Boxes3D.empty()


TASK = Detection3D()
