"""The task: what a model answers with, what is labeled, and how two answers are compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from clearance.geometry import nearest_boxes
from shared.data import Sample
from shared.pairing import Pairing
from shared.tasks import ErrorKind, Rows, RowsTask

#: An answer that is off by no more is right [m].
NEAR_ENOUGH = 1.0


@dataclass(frozen=True)
class Clearance(Rows):
    """One answer.

    Attributes:
        distances: (SECTORS,) float32, to the nearest road user [m].
    """

    distances: npt.NDArray[np.float32]


class ClearanceTask(RowsTask[Clearance]):
    """Sectors of two answers belong together by their position."""

    container = Clearance
    view = "lidar_frame"
    errors: ClassVar = {"distance": ErrorKind("m", exact=0.01, close=0.05, half=0.1, eight_bits=1.0)}
    metric = "within 1 m"

    def empty(self) -> Clearance:
        """No sectors."""
        return Clearance(np.zeros(0, np.float32))

    def pair(self, reference: Clearance, test: Clearance) -> Pairing:
        """The distances of each sector, where both are numbers."""
        known = np.isfinite(reference.distances) & np.isfinite(test.distances)
        errors = np.abs(test.distances.astype(np.float64) - reference.distances)[known]
        nobody = np.zeros(0)
        return Pairing(
            reference_count=len(reference), test_count=len(test), non_finite=2 * int((~known).sum()),
            matched=len(errors), errors={"distance": errors}, label_flips=0, reference_alone=nobody, test_alone=nobody,
        )  # fmt: skip

    def labels_of(self, sample: Sample, to_model: npt.NDArray[np.int64]) -> Clearance | None:  # noqa: ARG002
        """From the boxes, of whatever class: a road user is one."""
        return None if sample.ground_truth is None else Clearance(nearest_boxes(sample.ground_truth))

    def agreement(self, truth: Iterable[Clearance], results: Iterable[Clearance]) -> dict[str, float]:
        """``within 1 m``: share of the sectors."""
        off = [np.abs(a.distances - b.distances) for a, b in zip(truth, results, strict=True)]
        return {self.metric: float((np.concatenate(off) <= NEAR_ENOUGH).mean())} if off else {}


TASK = ClearanceTask()
