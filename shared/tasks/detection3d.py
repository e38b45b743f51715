"""3D detection: oriented boxes in the lidar frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from shared.arrays import Bool, Float32, Float64, Int64
from shared.geometry import wrap_angle
from shared.metrics.agreement import mean_average_precisions
from shared.metrics.average_precision import LEAST, yaw_error
from shared.pairing import Pairing, pair_nearest
from shared.tasks import KEPT_SCORE, ErrorKind, QuickMetric, Rows, RowsTask, filled_column

if TYPE_CHECKING:
    from shared.data.types import Sample
    from shared.metrics.box_table import BoxTable


#: Boxes whose centers are further apart than this [m] are not the same box. AWML's circle NMS leaves no two boxes
#: closer than 1 m, so a box of one run has at most one partner of its label in the other.
MATCH_DISTANCE = 0.5

# A side of no length has no relative difference; one this short [m] is no object's.
_SHORTEST_SIDE = 1e-3


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
    """3D detection.

    Boxes are the same when their centers are within `MATCH_DISTANCE`. ``center`` is their distance in 3D; ``size`` the
    largest relative difference of a side, since sizes are decoded from their logarithms; ``yaw`` the angle between the
    headings, in [0, pi]; ``velocity`` the length of the difference, NaN where both don't know it, infinite where one
    doesn't. Shifts of the center are along the axes of the frame (``x``, ``y``, ``z``) and of the reference's box
    (``forward``, ``left``), ``speed`` is that of the velocity along its heading, ``length``, ``width`` and ``height``
    are relative, ``turn`` is counter-clockwise.
    """

    container = Boxes3D
    view = "lidar_frame"
    errors: ClassVar = {
        "center": ErrorKind("m", 0.01, 0.05, 0.1, 0.3),
        "size": ErrorKind("", 0.01, 0.05, 0.1, 0.3),
        "yaw": ErrorKind("rad", 0.01, 0.05, 0.1, 0.5),
        "velocity": ErrorKind("m/s", 0.01, 0.1, 0.2, 1.0),
        "score": ErrorKind("", 0.001, 0.01, 0.02, 0.1),
    }
    shifts: ClassVar = {
        "x": "center",
        "y": "center",
        "z": "center",
        "forward": "center",
        "left": "center",
        "length": "size",
        "width": "size",
        "height": "size",
        "turn": "yaw",
        "speed": "velocity",
        "confidence": "score",
    }
    operating_score = KEPT_SCORE
    metric = "mAP"

    def empty(self) -> Boxes3D:
        """No boxes."""
        return Boxes3D.empty()

    def pair(self, reference: Boxes3D, test: Boxes3D) -> Pairing:
        """Boxes by the distance of their centers."""
        return pair_nearest(
            reference,
            test,
            finite=_finite,
            distances=_distances,
            reach=MATCH_DISTANCE,
            errors=_errors,
            shifts=_shifts,
        )

    def labels_of(self, sample: Sample, to_model: Int64) -> Boxes3D | None:
        """As in the evaluator: nobody could have seen a box that is known to have no point."""
        if sample.ground_truth is None:
            return None
        boxes = replace(sample.ground_truth, labels=to_model[sample.ground_truth.labels])
        return boxes.select((boxes.labels >= 0) & (boxes.num_points != 0))

    def agreement(self, truth: Iterable[Boxes3D], results: Iterable[Boxes3D]) -> dict[str, float]:
        """``mAP``: nuScenes' over any range, without classes that the truth lacks. ``mAPH``: a hit counts in precision
        by how well its heading fits (1 - angle / pi), so that it sees what mAP does not: a wrong yaw.
        """
        from shared.metrics.matching import descending_scores  # not above: it takes boxes of this module

        num_truths: Counter[int] = Counter()
        parts = []
        samples = zip(truth, results, strict=True)
        while some := list(islice(samples, _SAMPLES_AT_A_TIME)):
            right, given = (_finite_table(side) for side in zip(*some, strict=True))
            num_truths.update(right.labels.tolist())
            parts.append(_judged(right, given))
        judged = _joined(parts or [_judged(_finite_table([]), _finite_table([]))])
        credits = {"mAP": lambda level: judged.hits[level].astype(np.float64), "mAPH": judged.credits}
        order = descending_scores(judged.scores)
        return mean_average_precisions(judged.scores, judged.labels, order, judged.hits, num_truths, credits, LEAST)

    def quick_metric(self, samples: Sequence[Sample], to_model: Int64, classes: Sequence[str]) -> QuickMetric[Boxes3D]:
        """The evaluator's headline: nuScenes' mAP within 121 m of the vehicle; every class counts."""
        from shared.metrics import nuscenes
        from shared.metrics.box_table import to_ego_frame

        poses, truths = [], []
        for sample in samples:
            boxes = self.labels_of(sample, to_model)
            if boxes is not None:
                poses.append(sample.lidar2ego)
                truths.append(to_ego_frame(boxes, sample.lidar2ego))

        def score(predictions: Sequence[Boxes3D]) -> float:
            placed = [to_ego_frame(boxes, pose) for boxes, pose in zip(predictions, poses, strict=True)]
            return nuscenes.score_frames(placed, truths, classes, nuscenes.REACH).mean_average_precision

        return QuickMetric("mAP", score)


# Samples whose boxes are in memory at a time; of the others only what an average precision needs.
_SAMPLES_AT_A_TIME = 2000


@dataclass(frozen=True)
class _Judged:
    """N results, and which of them are right.

    Attributes:
        scores: (N,).
        labels: (N,) int16.
        hits: (T, N) whether each takes a truth, by nuScenes' distances.
        headings: (N,) by how well the heading fits that of the truth that is taken at the largest distance, in [0, 1].
        others: per distance, where another truth is taken: (K,) rows, and (K,) how well that one's heading fits.
    """

    scores: npt.NDArray[np.floating]
    labels: npt.NDArray[np.int16]
    hits: Bool
    headings: Float64
    others: list[tuple[Int64, Float64]]

    def credits(self, level: int) -> Float64:
        """(N,) what each counts at a distance: how well the heading fits, 0 for no hit."""
        found = np.where(self.hits[level], self.headings, 0.0)
        rows, values = self.others[level]
        found[rows] = values
        return found


def _finite_table(samples: Sequence[Boxes3D]) -> BoxTable:
    from shared.metrics.box_table import table_of

    table = table_of(samples)
    return table.select(_finite(table))


def _judged(right: BoxTable, given: BoxTable) -> _Judged:
    """Judge the results of some samples."""
    from shared.metrics import nuscenes
    from shared.metrics.matching import descending_scores, groups_of, match_greedily, pairs_within

    pairs = pairs_within(given, right, max(nuscenes.DISTANCES))
    order, distances = descending_scores(given.scores), np.array(nuscenes.DISTANCES)
    matched = match_greedily(pairs, groups_of(given), len(right), order, distances)
    widest = matched[int(distances.argmax())]

    def fits(rows: Int64, partners: Int64) -> Float64:
        yaws = given.yaws[rows].astype(np.float64), right.yaws[partners[rows]].astype(np.float64)
        return np.asarray(1.0 - yaw_error(*yaws) / np.pi)

    headings = np.zeros(len(given))
    hit = np.flatnonzero(widest >= 0)
    headings[hit] = fits(hit, widest)
    others = []
    for partners in matched:
        rows = np.flatnonzero((partners >= 0) & (partners != widest))
        others.append((rows, fits(rows, partners)))
    return _Judged(given.scores, given.labels.astype(np.int16), matched >= 0, headings, others)


def _joined(parts: Sequence[_Judged]) -> _Judged:
    starts = np.cumsum([0, *(len(part.scores) for part in parts[:-1])])
    others = [
        (
            np.concatenate([start + part.others[level][0] for start, part in zip(starts, parts, strict=True)]),
            np.concatenate([part.others[level][1] for part in parts]),
        )
        for level in range(len(parts[0].others))
    ]
    return _Judged(
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.hits for part in parts], axis=1),
        np.concatenate([part.headings for part in parts]),
        others,
    )


def _finite(boxes: Boxes3D | BoxTable) -> Bool:
    """(N,) boxes without NaN and infinities; the velocity may be NaN, which means unknown, but not infinite."""
    columns = np.column_stack([boxes.centers, boxes.sizes, boxes.yaws, boxes.scores])
    return np.asarray(np.isfinite(columns).all(axis=1) & ~np.isinf(boxes.velocities).any(axis=1))


def _distances(reference: Boxes3D, test: Boxes3D) -> Float64:
    """(N, M) distances between centers [m]."""
    offsets = reference.centers[:, None].astype(np.float64) - test.centers[None]
    return np.asarray(np.sqrt((offsets**2).sum(axis=2)))


def _errors(reference: Boxes3D, test: Boxes3D) -> dict[str, Float64]:
    """Errors of K pairs, (K,) each, see `Detection3D`."""

    def difference(column: str) -> Float64:
        return _difference(reference, test, column)

    velocity = np.sqrt((difference("velocities") ** 2).sum(axis=1))
    one_unknown = np.isnan(reference.velocities).any(axis=1) != np.isnan(test.velocities).any(axis=1)
    return {
        "center": np.sqrt((difference("centers") ** 2).sum(axis=1)),
        "size": (np.abs(difference("sizes")) / np.maximum(reference.sizes, _SHORTEST_SIDE)).max(axis=1, initial=0.0),
        "yaw": np.abs(wrap_angle(difference("yaws"))),
        "velocity": np.where(one_unknown, np.inf, velocity),
        "score": np.abs(difference("scores")),
    }


def _shifts(reference: Boxes3D, test: Boxes3D) -> dict[str, Float64]:
    """Signed differences of K pairs, (K,) each, see `Detection3D`."""
    yaws = reference.yaws.astype(np.float64)
    sin, cos = np.sin(yaws), np.cos(yaws)
    x, y, z = _difference(reference, test, "centers").T
    velocity = _difference(reference, test, "velocities")
    sizes = _difference(reference, test, "sizes") / np.maximum(reference.sizes, _SHORTEST_SIDE)
    return {
        "x": x,
        "y": y,
        "z": z,
        "forward": cos * x + sin * y,
        "left": cos * y - sin * x,
        "length": sizes[:, 0],
        "width": sizes[:, 1],
        "height": sizes[:, 2],
        "turn": wrap_angle(_difference(reference, test, "yaws")),
        "speed": cos * velocity[:, 0] + sin * velocity[:, 1],
        "confidence": _difference(reference, test, "scores"),
    }


def _difference(reference: Boxes3D, test: Boxes3D, column: str) -> Float64:
    return np.asarray(getattr(test, column).astype(np.float64) - getattr(reference, column))


TASK = Detection3D()
