"""Decoded 3D boxes of two runs, matched and compared.

Within a sample and label, the pair of boxes whose centres are nearest is matched first, then the nearest of what is
left, up to ``MATCH_DISTANCE``. That is symmetric in the two runs and does not look at scores, since scores are among
what is compared. What stays unmatched is matched once more regardless of the label: those are label flips.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.tasks import Boxes3D
from verifier.statistics import QUANTILES

#: Boxes further apart than this [m] are not the same box. AWML's circle NMS leaves no two boxes closer than 1 m, so a
#: box of one run has at most one partner of its label in the other.
MATCH_DISTANCE = 0.5

ERRORS = ("center", "size", "yaw", "velocity", "score")

# Of the unmatched boxes of a side, so many scores are stored, the highest first: enough to judge again with any score
# margin, while a comparison of two unlike models still gives a small file.
_SCORES_KEPT = 1000

# A side of no length has no relative difference; one this short [m] is no object's.
_SHORTEST_SIDE = 1e-3

Float64 = npt.NDArray[np.float64]


@dataclass
class BoxStatistics:
    """Statistics of matched and unmatched boxes over the samples seen so far; `add` feeds it.

    Matched pairs keep one float per error, so memory grows by 40 bytes a box: 1,000 samples of 500 boxes are 20 MB.
    """

    samples: int = 0
    reference_boxes: int = 0
    test_boxes: int = 0
    non_finite: int = 0
    label_flips: int = 0
    reference_unmatched: list[float] = field(default_factory=list)
    test_unmatched: list[float] = field(default_factory=list)
    worst_sample: int | None = None
    _worst_center: float = -1.0
    _errors: dict[str, list[Float64]] = field(default_factory=lambda: {name: [] for name in ERRORS})

    def add(self, sample: int, reference: Boxes3D, test: Boxes3D) -> None:
        """Compare one sample's boxes."""
        self.samples += 1
        self.reference_boxes += len(reference)
        self.test_boxes += len(test)
        reference_finite, test_finite = _finite(reference), _finite(test)
        self.non_finite += int((~reference_finite).sum() + (~test_finite).sum())
        reference, test = reference.select(reference_finite), test.select(test_finite)

        rows, columns = match_nearest(reference, test, same_label=True)
        for name, values in box_errors(reference.select(rows), test.select(columns)).items():
            self._errors[name].append(values)
            if name == "center" and len(values) and values.max() > self._worst_center:
                self._worst_center, self.worst_sample = float(values.max()), sample

        left = reference.select(np.setdiff1d(np.arange(len(reference)), rows))
        right = test.select(np.setdiff1d(np.arange(len(test)), columns))
        flipped_rows, flipped_columns = match_nearest(left, right, same_label=False)
        self.label_flips += len(flipped_rows)
        self.reference_unmatched += np.delete(left.scores, flipped_rows).tolist()
        self.test_unmatched += np.delete(right.scores, flipped_columns).tolist()

    def summary(self) -> dict[str, Any]:
        """What is stored: JSON. ``reference_unmatched`` and ``test_unmatched`` hold the highest scores of each side."""
        errors: dict[str, Any] = {}
        columns = {name: np.concatenate([np.zeros(0), *parts]) for name, parts in self._errors.items()}
        for name, column in columns.items():
            values = column[np.isfinite(column)]
            if len(values):
                errors[name] = {
                    "pairs": len(values),
                    "max": float(values.max()),
                    "mean": float(values.mean()),
                    "quantiles": {str(q): float(np.quantile(values, q)) for q in QUANTILES},
                }
        return {
            "samples": self.samples,
            "reference_boxes": self.reference_boxes,
            "test_boxes": self.test_boxes,
            "non_finite": self.non_finite,
            "matched": sum(len(part) for part in self._errors["center"]),
            "label_flips": self.label_flips,
            "velocity_known_once": int(np.isinf(columns["velocity"]).sum()),
            "num_reference_unmatched": len(self.reference_unmatched),
            "num_test_unmatched": len(self.test_unmatched),
            "reference_unmatched": sorted(self.reference_unmatched, reverse=True)[:_SCORES_KEPT],
            "test_unmatched": sorted(self.test_unmatched, reverse=True)[:_SCORES_KEPT],
            "worst_sample": self.worst_sample,
            "errors": errors,
        }


def _finite(boxes: Boxes3D) -> npt.NDArray[np.bool_]:
    """(N,) boxes without NaN and infinities; the velocity may be NaN, which means unknown, but not infinite."""
    columns = np.column_stack([boxes.centers, boxes.sizes, boxes.yaws, boxes.scores])
    return np.asarray(np.isfinite(columns).all(axis=1) & ~np.isinf(boxes.velocities).any(axis=1))


def match_nearest(
    reference: Boxes3D, test: Boxes3D, *, same_label: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Match boxes, nearest pair first.

    Args:
        reference, test: boxes of one sample, finite.
        same_label: whether only boxes of the same label match.

    Returns:
        Rows of the reference and rows of the test of the K pairs, (K,) each; centres at most ``MATCH_DISTANCE`` apart.
    """
    offsets = reference.centers[:, None].astype(np.float64) - test.centers[None]
    distances = np.sqrt((offsets**2).sum(axis=2))
    allowed = distances <= MATCH_DISTANCE
    if same_label:
        allowed &= reference.labels[:, None] == test.labels[None]
    rows, columns = np.nonzero(allowed)
    free_rows, free_columns = np.ones(len(reference), np.bool_), np.ones(len(test), np.bool_)
    pairs = []
    for pair in np.argsort(distances[rows, columns], kind="stable"):
        row, column = int(rows[pair]), int(columns[pair])
        if free_rows[row] and free_columns[column]:
            free_rows[row] = free_columns[column] = False
            pairs.append((row, column))
    matched = np.array(pairs, np.int64).reshape(-1, 2)
    return matched[:, 0], matched[:, 1]


def box_errors(reference: Boxes3D, test: Boxes3D) -> dict[str, Float64]:
    """Errors of K matched pairs, (K,) each.

    Returns:
        ``center`` distance in 3D [m]; ``size`` largest relative difference of a side, since sizes are decoded from
        their logarithms; ``yaw`` angle between the headings in [0, pi] rad; ``velocity`` length of the difference
        [m/s], NaN where both don't know it, infinite where one doesn't; ``score`` difference.
    """

    def difference(column: str) -> Float64:
        return np.asarray(getattr(test, column).astype(np.float64) - getattr(reference, column))

    yaw = difference("yaws")
    velocity = np.sqrt((difference("velocities") ** 2).sum(axis=1))
    one_unknown = np.isnan(reference.velocities).any(axis=1) != np.isnan(test.velocities).any(axis=1)
    return {
        "center": np.sqrt((difference("centers") ** 2).sum(axis=1)),
        "size": (np.abs(difference("sizes")) / np.maximum(reference.sizes, _SHORTEST_SIDE)).max(axis=1, initial=0.0),
        "yaw": np.abs((yaw + np.pi) % (2 * np.pi) - np.pi),
        "velocity": np.where(one_unknown, np.inf, velocity),
        "score": np.abs(difference("scores")),
    }
