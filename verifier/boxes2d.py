"""2D boxes of two runs: when two are the same box, and how far apart they are then."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shared.geometry import overlaps_2d
from shared.tasks.detection2d import Boxes2D
from verifier.results import ResultKind

Float64 = npt.NDArray[np.float64]

#: Boxes that overlap less than this (intersection over union) are not the same box: above it, a box of one run has at
#: most one partner among boxes that don't overlap by half themselves.
MATCH_OVERLAP = 0.5


def _finite(boxes: Boxes2D) -> npt.NDArray[np.bool_]:
    """(N,) boxes without NaN and infinities."""
    return np.asarray(np.isfinite(boxes.corners).all(axis=1) & np.isfinite(boxes.scores))


def _distances(reference: Boxes2D, test: Boxes2D) -> Float64:
    """(N, M) one minus intersection over union; 1 for boxes without area."""
    return np.asarray(1.0 - overlaps_2d(reference.corners, test.corners))


def _errors(reference: Boxes2D, test: Boxes2D) -> dict[str, Float64]:
    """Errors of K matched pairs, (K,) each: ``corner``, largest difference of a coordinate [px], and ``score``."""
    corner = np.abs(test.corners.astype(np.float64) - reference.corners)
    return {
        "corner": corner.max(axis=1, initial=0.0),
        "score": np.abs(test.scores.astype(np.float64) - reference.scores),
    }


KIND: ResultKind[Boxes2D] = ResultKind(
    type=Boxes2D,
    errors=_errors,
    finite=_finite,
    labels=lambda boxes: boxes.labels,
    scores=lambda boxes: boxes.scores,
    distances=_distances,
    reach=1.0 - MATCH_OVERLAP,
)
