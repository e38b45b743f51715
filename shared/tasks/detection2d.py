"""2D detection: boxes in an image."""

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
class Boxes2D(Rows):
    """2D boxes of one image, in pixels of the image as it is stored. Rows are parallel.

    Attributes:
        corners: (N, 4) float32, left, top, right, bottom; the top left corner of the image is (0, 0).
        labels: (N,) int64, index into the class list.
        scores: (N,) float32 in [0, 1]; ones for ground truth.
    """

    corners: Float32
    labels: Int64
    scores: Float32

    WIDTHS: ClassVar[Mapping[str, int | None]] = {"corners": 4}

    @staticmethod
    def empty() -> Boxes2D:
        """No boxes."""
        return Boxes2D.build(np.zeros((0, 4)))

    @staticmethod
    def build(
        corners: npt.ArrayLike, labels: npt.ArrayLike | None = None, scores: npt.ArrayLike | None = None
    ) -> Boxes2D:
        """Boxes from anything array-like; labels default to 0, scores to 1."""
        array = np.asarray(corners, np.float32).reshape(-1, 4)
        count = len(array)
        return Boxes2D(array, filled_column(count, labels, 0, np.int64), filled_column(count, scores, 1.0, np.float32))


class Detection2D(RowsTask[Boxes2D]):
    """2D detection."""

    container = Boxes2D
    view = "image"

    def empty(self) -> Boxes2D:
        """No boxes."""
        return Boxes2D.empty()


TASK = Detection2D()
