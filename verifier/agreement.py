"""How good results are, in one number or two a task: against labels, or against what another run says.

Small relatives of the evaluator's metrics, to weigh one run against another. For 3D boxes ``mAP`` is nuScenes' over the
whole range, equal to the evaluator's on boxes within its range; in ``mAPH`` a hit counts in precision by how well its
heading fits (1 - angle / pi), so that it sees what mAP does not: a wrong yaw. For 2D boxes ``mAP`` is at an overlap of
one half. For class scores there is ``accuracy``. Classes of which there is none in the truth are left out, as are
results with NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.tasks.classification import ClassScores
from shared.tasks.detection3d import Boxes3D
from verifier import boxes2d, boxes3d, class_scores
from verifier.results import ResultKind

Float64 = npt.NDArray[np.float64]

# nuScenes (devkit ``eval/detection/config_factory.py``): distances in the x, y plane [m], recalls and precisions up to
# a tenth do not count.
_DISTANCES = (0.5, 1.0, 2.0, 4.0)
_SKIPPED = 0.1
_RECALLS = np.linspace(0.0, 1.0, 101)

Credit = Callable[[Any, Any], Float64]


@dataclass(frozen=True)
class _Rule:
    """When a result is a hit, and how much of one.

    Attributes:
        kind: of result.
        distances: (N, M) between results.
        limits: hits are nearer than these; the metric is the mean over them.
        credits: by name of the metric: (K,) in [0, 1] for K hits.
        skipped: precisions and recalls up to here do not count.
    """

    kind: ResultKind[Any]
    distances: Callable[[Any, Any], Float64]
    limits: tuple[float, ...]
    credits: Mapping[str, Credit]
    skipped: float


def _ground_distances(reference: Boxes3D, test: Boxes3D) -> Float64:
    offsets = reference.centers[:, None, :2].astype(np.float64) - test.centers[None, :, :2]
    return np.asarray(np.sqrt((offsets**2).sum(axis=2)))


def _full(reference: Any, test: Any) -> Float64:  # noqa: ARG001 (other credits look at both)
    return np.ones(len(reference))


def _heading(reference: Boxes3D, test: Boxes3D) -> Float64:
    return np.asarray(1.0 - boxes3d.KIND.errors(reference, test)["yaw"] / np.pi)


_RULES: Mapping[str, _Rule] = {
    "detection3d": _Rule(
        boxes3d.KIND, _ground_distances, _DISTANCES, {"mAP": _full, "mAPH": _heading}, skipped=_SKIPPED
    ),
    "detection2d": _Rule(boxes2d.KIND, boxes2d.KIND.distances, (boxes2d.MATCH_OVERLAP,), {"mAP": _full}, skipped=0.0),
}


def agreement(task: str, truth: Sequence[Any], results: Sequence[Any], classes: int) -> dict[str, float]:
    """How well ``results`` agree with ``truth``.

    Args:
        task: which decides the metrics.
        truth: what is right, one container of the task per sample.
        results: what is judged, of the same samples.
        classes: number of classes.

    Returns:
        Metrics by name, in [0, 1], larger is better; empty when the truth is empty.
    """
    if task == "classification":
        return _accuracy(truth, results)
    rule = _RULES[task]
    values: dict[str, list[float]] = {name: [] for name in rule.credits}
    for label in range(classes):
        wanted = [_of_label(rule.kind, sample, label) for sample in truth]
        found = [_of_label(rule.kind, sample, label) for sample in results]
        if not any(map(len, wanted)):
            continue
        for limit in rule.limits:
            for name, value in _average_precisions(rule, wanted, found, limit).items():
                values[name].append(value)
    return {name: float(np.mean(parts)) for name, parts in values.items() if parts}


def _accuracy(truth: Sequence[ClassScores], results: Sequence[ClassScores]) -> dict[str, float]:
    kind = class_scores.KIND
    same = [
        kind.labels(wanted)[: len(found)] == kind.labels(found)[: len(wanted)]
        for wanted, found in zip(truth, results, strict=True)
    ]
    total = sum(map(len, truth))
    return {"accuracy": float(sum(part.sum() for part in same) / total)} if total else {}


def _of_label(kind: ResultKind[Any], results: Any, label: int) -> Any:
    return results.select((kind.labels(results) == label) & kind.finite(results))


def _average_precisions(rule: _Rule, truth: Sequence[Any], results: Sequence[Any], limit: float) -> dict[str, float]:
    """Average precision of one class, for every credit of the rule."""
    scores: list[Float64] = []
    hits_found: list[npt.NDArray[np.bool_]] = []
    credits: dict[str, list[Float64]] = {name: [] for name in rule.credits}
    for wanted, found in zip(truth, results, strict=True):
        order = np.argsort(-rule.kind.scores(found), kind="stable")
        ranked = found.select(order)
        partners = _greedy(rule.distances(wanted, ranked), limit)
        hits = np.flatnonzero(partners >= 0)
        hits_found.append(partners >= 0)
        scores.append(rule.kind.scores(ranked).astype(np.float64))
        for name, credit in rule.credits.items():
            values = np.zeros(len(ranked))
            values[hits] = credit(wanted.select(partners[hits]), ranked.select(hits))
            credits[name].append(values)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    total = sum(map(len, truth))
    ranked_hits = np.concatenate(hits_found)[order]
    return {
        name: _area(ranked_hits, np.concatenate(parts)[order], total, rule.skipped) for name, parts in credits.items()
    }


def _greedy(distances: Float64, limit: float) -> npt.NDArray[np.int64]:
    """(M,) for results in descending score the nearest truth that is free and nearer than ``limit``, -1 for none.

    Args:
        distances: (N, M) between truths and results.
        limit: upper bound, not included.
    """
    partners = np.full(distances.shape[1], -1, np.int64)
    free = distances.copy()
    for column in range(distances.shape[1] if len(distances) else 0):
        row = int(free[:, column].argmin())
        if free[row, column] < limit:
            partners[column] = row
            free[row] = np.inf
    return partners


def _area(hits: npt.NDArray[np.bool_], credits: Float64, total: int, skipped: float) -> float:
    """Area under the curve of precision over recall.

    Recall counts hits in full: if it counted credits, a hair's breadth of heading would lose the last recall.

    Args:
        hits: (K,) whether each result is one, by descending score.
        credits: (K,) in [0, 1], what each result counts in precision.
        total: number of truths, > 0.
        skipped: precisions and recalls up to here do not count.
    """
    if not hits.any():
        return 0.0
    precision = np.cumsum(credits) / np.arange(1, len(credits) + 1)
    sampled = np.interp(_RECALLS, np.cumsum(hits) / total, precision, right=0)
    first = round(skipped * 100) + 1 if skipped else 0
    return float(np.mean(np.maximum(sampled[first:] - skipped, 0.0)) / (1.0 - skipped))
