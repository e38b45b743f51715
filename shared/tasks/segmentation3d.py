"""3D segmentation: a class for each lidar point."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from shared.arrays import Float32, Int64, UInt8
from shared.metrics.confusion import MOST_CLASSES, agreement, confusion
from shared.pairing import SURE_MARGIN, Pairing, pair_by_position
from shared.tasks import ErrorKind, Rows, RowsTask, filled_column

if TYPE_CHECKING:
    from shared.data.types import Sample


@dataclass(frozen=True)
class PointClasses(Rows):
    """The classes of the points of one frame, in the order of the point file. Rows are parallel.

    Attributes:
        labels: (N,) uint8; `shared.metrics.confusion.UNLABELED` for a point of no class: one that is not judged (in
            ground truth), or for which the model decided that it is of no class (its class to be ignored).
        scores: (N,) float32, probability of the class; ones for ground truth.
        margins: (N,) float32, by how much it is above the probability of the next class; ones for ground truth.
    """

    labels: UInt8
    scores: Float32
    margins: Float32

    @staticmethod
    def build(
        labels: npt.ArrayLike, scores: npt.ArrayLike | None = None, margins: npt.ArrayLike | None = None
    ) -> PointClasses:
        """Classes from anything array-like; scores and margins default to 1."""
        array = np.asarray(labels, np.uint8).reshape(-1)
        count = len(array)
        return PointClasses(
            array, filled_column(count, scores, 1.0, np.float32), filled_column(count, margins, 1.0, np.float32)
        )

    @staticmethod
    def of_probabilities(probabilities: npt.ArrayLike) -> PointClasses:
        """The likeliest of (N, C) probabilities; of equal ones the first."""
        rows = np.asarray(probabilities, np.float32)
        best_two = -np.partition(-rows, 1, axis=1)[:, :2]
        return PointClasses(rows.argmax(axis=1).astype(np.uint8), best_two[:, 0], best_two[:, 0] - best_two[:, 1])


class Segmentation3D(RowsTask[PointClasses]):
    """3D segmentation.

    Points of two runs belong together by their position. Where each of the two decides by a hair, as far as ``score``
    may differ in FP32, different classes are no flip.
    """

    container = PointClasses
    view = "lidar_frame"
    errors: ClassVar = {"score": ErrorKind("", 0.001, 0.01, 0.02, 0.1)}
    shifts: ClassVar = {"confidence": "score"}
    by_label = True
    metric = "mIoU"

    def empty(self) -> PointClasses:
        """No points."""
        return PointClasses.build([])

    def pair(self, reference: PointClasses, test: PointClasses) -> Pairing:
        """Points by their position."""
        return pair_by_position(
            (reference.labels, test.labels),
            (reference.margins, test.margins),
            {"score": (reference.scores.astype(np.float64), test.scores.astype(np.float64))},
            hair=2 * self.errors["score"].exact,  # two classes, each off by so much
            sure=SURE_MARGIN,
            shifts=self.shifts,
        )

    def labels_of(self, sample: Sample, to_model: Int64) -> PointClasses | None:
        """The labels of the points; those of classes that the model does not know are not judged.

        Raises:
            InputError: the file of labels is missing, or is not one.
        """
        return None if sample.point_labels is None else PointClasses.build(sample.point_labels.read(to_model))

    def agreement(self, truth: Iterable[PointClasses], results: Iterable[PointClasses]) -> dict[str, float]:
        """``mIoU`` over the classes that are there or found, and ``accuracy``; points without a partner are wrong."""
        pairs = np.zeros((MOST_CLASSES, MOST_CLASSES + 1), np.int64)
        for wanted, given in zip(truth, results, strict=True):
            labels = np.full(len(wanted), MOST_CLASSES, np.uint8)
            both = min(len(wanted), len(given))
            labels[:both] = given.labels[:both]
            pairs += confusion(wanted.labels, labels, MOST_CLASSES)[0]
        return agreement(pairs)


TASK = Segmentation3D()
