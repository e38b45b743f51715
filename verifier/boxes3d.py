"""3D boxes of two runs: when two are the same box, and how far apart they are then."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shared.geometry import wrap_angle
from shared.tasks.detection3d import Boxes3D
from verifier.results import ResultKind

Float64 = npt.NDArray[np.float64]

#: Boxes whose centers are further apart than this [m] are not the same box. AWML's circle NMS leaves no two boxes
#: closer than 1 m, so a box of one run has at most one partner of its label in the other.
MATCH_DISTANCE = 0.5

# A side of no length has no relative difference; one this short [m] is no object's.
_SHORTEST_SIDE = 1e-3


def _finite(boxes: Boxes3D) -> npt.NDArray[np.bool_]:
    """(N,) boxes without NaN and infinities; the velocity may be NaN, which means unknown, but not infinite."""
    columns = np.column_stack([boxes.centers, boxes.sizes, boxes.yaws, boxes.scores])
    return np.asarray(np.isfinite(columns).all(axis=1) & ~np.isinf(boxes.velocities).any(axis=1))


def _distances(reference: Boxes3D, test: Boxes3D) -> Float64:
    """(N, M) distances between centers [m]."""
    offsets = reference.centers[:, None].astype(np.float64) - test.centers[None]
    return np.asarray(np.sqrt((offsets**2).sum(axis=2)))


def _errors(reference: Boxes3D, test: Boxes3D) -> dict[str, Float64]:
    """Errors of K matched pairs, (K,) each.

    Returns:
        ``center`` distance in 3D [m]; ``size`` largest relative difference of a side, since sizes are decoded from
        their logarithms; ``yaw`` angle between the headings in [0, pi] rad; ``velocity`` length of the difference
        [m/s], NaN where both don't know it, infinite where one doesn't; ``score`` difference.
    """

    def difference(column: str) -> Float64:
        return np.asarray(getattr(test, column).astype(np.float64) - getattr(reference, column))

    velocity = np.sqrt((difference("velocities") ** 2).sum(axis=1))
    one_unknown = np.isnan(reference.velocities).any(axis=1) != np.isnan(test.velocities).any(axis=1)
    return {
        "center": np.sqrt((difference("centers") ** 2).sum(axis=1)),
        "size": (np.abs(difference("sizes")) / np.maximum(reference.sizes, _SHORTEST_SIDE)).max(axis=1, initial=0.0),
        "yaw": np.abs(wrap_angle(difference("yaws"))),
        "velocity": np.where(one_unknown, np.inf, velocity),
        "score": np.abs(difference("scores")),
    }


KIND: ResultKind[Boxes3D] = ResultKind(
    type=Boxes3D,
    errors=_errors,
    finite=_finite,
    labels=lambda boxes: boxes.labels,
    scores=lambda boxes: boxes.scores,
    distances=_distances,
    reach=MATCH_DISTANCE,
)
