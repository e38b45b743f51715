"""What models answer with, per task: plain NumPy containers, the same for every tool.

A task's container has parallel columns, one row a result: that is all that `shared.runs` needs to store it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from shared.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


class _Rows:
    """Columns with one row a result. A dataclass that derives from it names the width of each column.

    ``WIDTHS``: columns that are matrices, by name; the others are vectors. None: any width.
    """

    WIDTHS: ClassVar[Mapping[str, int | None]] = {}

    def __post_init__(self) -> None:
        count = len(self)
        for name in self.columns():
            actual = getattr(self, name).shape
            width = self.WIDTHS.get(name)
            if name in self.WIDTHS and width is None:
                width = actual[-1]
            expected = (count, width) if name in self.WIDTHS else (count,)
            if actual != expected:
                raise ValueError(f"{type(self).__name__}.{name} has shape {actual}, expected {expected}")

    def __len__(self) -> int:
        return len(getattr(self, self.columns()[0]))

    @classmethod
    def columns(cls) -> list[str]:
        """Names of the columns, in order."""
        return [field.name for field in fields(cls)]  # type: ignore[arg-type]  # subclasses are dataclasses

    def select(self, index: npt.NDArray[np.bool_] | npt.NDArray[np.integer]) -> Self:
        """The rows at ``index``, a boolean mask (N,) or integer positions (K,)."""
        return type(self)(**{name: getattr(self, name)[index] for name in self.columns()})


def _column(count: int, values: npt.ArrayLike | None, default: float, dtype: type[np.generic]) -> npt.NDArray[Any]:
    """(N,) values, or the default in every row."""
    return np.full(count, default, dtype) if values is None else np.asarray(values, dtype).reshape(count)


@dataclass(frozen=True)
class Boxes3D(_Rows):
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
            labels=_column(count, labels, 0, np.int64),
            scores=_column(count, scores, 1.0, np.float32),
            num_points=_column(count, num_points, 0, np.int64),
        )


@dataclass(frozen=True)
class Boxes2D(_Rows):
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
        return Boxes2D(array, _column(count, labels, 0, np.int64), _column(count, scores, 1.0, np.float32))


@dataclass(frozen=True)
class ClassScores(_Rows):
    """What a classifier says of one sample: a row for each thing that was classified, one as a rule.

    Attributes:
        logits: (N, C) float32, one column a class, before the softmax.
    """

    logits: Float32

    WIDTHS: ClassVar[Mapping[str, int | None]] = {"logits": None}

    @staticmethod
    def empty() -> ClassScores:
        """Nothing classified."""
        return ClassScores(np.zeros((0, 0), np.float32))

    @staticmethod
    def build(logits: npt.ArrayLike) -> ClassScores:
        """Scores from anything array-like, (C,) or (N, C)."""
        return ClassScores(np.atleast_2d(np.asarray(logits, np.float32)))


def softmax(logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(N, C) probabilities of logits (N, C), in double precision."""
    values = np.asarray(logits, np.float64)
    exponentials = np.exp(values - values.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


# Not `Boxes3D | ...`: this is evaluated when the module is imported, by Python 3.10 too.
Predictions = Boxes3D | Boxes2D | ClassScores

_BY_TASK: Mapping[str, type[Boxes3D] | type[Boxes2D] | type[ClassScores]] = {
    "detection3d": Boxes3D,
    "detection2d": Boxes2D,
    "classification": ClassScores,
}


def prediction_type(task: str) -> type[Boxes3D] | type[Boxes2D] | type[ClassScores]:
    """What a model of ``task`` answers with.

    Raises:
        InputError: no such task.
    """
    if task not in _BY_TASK:
        raise InputError(f"there is no task '{task}'", hint=f"there are: {', '.join(_BY_TASK)}")
    return _BY_TASK[task]
