"""perception_eval 1.3's detection metric box by box, in plain Python: slow, and written from its definition alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pyquaternion import Quaternion

from shared.metrics.box_table import BoxTable

Corner = tuple[float, float]


def _corners(table: BoxTable, row: int) -> list[Corner]:
    """Footprint corners (+l,+w), (-l,+w), (-l,-w), (+l,-w)."""
    x, y = (float(value) for value in table.centers[row, :2])
    length, width = (float(value) for value in table.sizes[row, :2])
    cos, sin = math.cos(table.yaws[row]), math.sin(table.yaws[row])
    local = [(length / 2, width / 2), (-length / 2, width / 2), (-length / 2, -width / 2), (length / 2, -width / 2)]
    return [(x + cos * a - sin * b, y + sin * a + cos * b) for a, b in local]


def center_distance_bev(estimated: BoxTable, i: int, truth: BoxTable, j: int) -> float:
    return math.dist(estimated.centers[i, :2], truth.centers[j, :2])


def center_distance(estimated: BoxTable, i: int, truth: BoxTable, j: int) -> float:
    return math.dist(estimated.centers[i].tolist(), truth.centers[j].tolist())


def plane_distance(estimated: BoxTable, i: int, truth: BoxTable, j: int) -> float:
    own, other = _corners(estimated, i), _corners(truth, j)
    mean = (sum(x for x, _ in own) / 4, sum(y for _, y in own) / 4)
    own.sort(key=lambda corner: math.atan2(corner[1] - mean[1], corner[0] - mean[0]))
    shifted = [own[k:] + own[:k] for k in range(4)]
    paired = min(shifted, key=lambda corners: sum(math.dist(a, b) for a, b in zip(corners, other, strict=True)))
    nearest = sorted(range(4), key=lambda k: math.hypot(*other[k]))[:2]
    return round(math.sqrt(sum(math.dist(paired[k], other[k]) ** 2 for k in nearest) / 2), 10)


def clip_area(subject: list[Corner], window: list[Corner]) -> float:
    """Area of two convex polygons' common part (Sutherland and Hodgman)."""
    polygon = subject
    for (ax, ay), (bx, by) in zip(window, window[1:] + window[:1], strict=True):

        def side(p: Corner, ax: float = ax, ay: float = ay, bx: float = bx, by: float = by) -> float:
            return (bx - ax) * (p[1] - ay) - (by - ay) * (p[0] - ax)

        clipped: list[Corner] = []
        for start, end in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            a, b = side(start), side(end)
            if a >= 0:
                clipped.append(start)
            if (a >= 0) != (b >= 0):
                t = a / (a - b)
                clipped.append((start[0] + t * (end[0] - start[0]), start[1] + t * (end[1] - start[1])))
        polygon = clipped
        if not polygon:
            return 0.0
    pairs = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return abs(sum(a[0] * b[1] - a[1] * b[0] for a, b in pairs)) / 2


def iou_bev(estimated: BoxTable, i: int, truth: BoxTable, j: int) -> float:
    common = clip_area(_corners(estimated, i), _corners(truth, j))
    return common / (estimated.sizes[i, 0] * estimated.sizes[i, 1] + truth.sizes[j, 0] * truth.sizes[j, 1] - common)


def iou_3d(estimated: BoxTable, i: int, truth: BoxTable, j: int) -> float:
    low = max(estimated.centers[i, 2] - estimated.sizes[i, 2] / 2, truth.centers[j, 2] - truth.sizes[j, 2] / 2)
    high = min(estimated.centers[i, 2] + estimated.sizes[i, 2] / 2, truth.centers[j, 2] + truth.sizes[j, 2] / 2)
    common = clip_area(_corners(estimated, i), _corners(truth, j)) * max(0.0, high - low)
    return common / (math.prod(estimated.sizes[i]) + math.prod(truth.sizes[j]) - common)


def _heading(table: BoxTable, row: int, unsigned: bool) -> float:
    rotation = Quaternion(axis=[0, 0, 1], angle=float(table.yaws[row]))
    return float(rotation.radians) if unsigned else float(rotation.yaw_pitch_roll[0])


def _weight(estimated: BoxTable, i: int, truth: BoxTable, j: int, unsigned: bool) -> float:
    difference = abs(_heading(estimated, i, unsigned) - _heading(truth, j, unsigned))
    if difference > math.pi:
        difference = 2 * math.pi - difference
    return round(min(1.0, max(0.0, 1.0 - difference / math.pi)), 10)


def reference_score(
    estimated: BoxTable,
    truth: BoxTable,
    classes: int,
    cost: Callable[..., float],
    threshold: float,
    low: float,
    high: float,
    *,
    is_overlap: bool = False,
    unsigned: bool = False,
    any_label: bool = False,
    min_points: Sequence[int] | None = None,
) -> list[dict[str, float]]:
    """Score per class at one threshold of one matching rule, for boxes strictly between ``low`` and ``high`` meters."""
    fewest = [1] * classes if min_points is None else min_points

    def seen(row: int) -> bool:
        return bool(truth.num_points[row] >= fewest[int(truth.labels[row])])

    def inside(table: BoxTable, row: int) -> bool:
        return low < math.hypot(*table.centers[row, :2]) < high

    def better(a: float, b: float) -> bool:
        return a > b if is_overlap else a < b

    results: list[list[tuple[float, float, bool]]] = [[] for _ in range(classes)]
    counts = [0] * classes
    for frame in sorted({*estimated.frames.tolist(), *truth.frames.tolist()}):
        rows = [i for i in np.flatnonzero(estimated.frames == frame).tolist() if inside(estimated, i)]
        free = [j for j in np.flatnonzero(truth.frames == frame).tolist() if inside(truth, j) and seen(j)]
        for j in free:
            counts[int(truth.labels[j])] += 1
        for i in sorted(rows, key=lambda row: estimated.scores[row], reverse=True):
            best: tuple[int, float] | None = None
            for j in free:
                if any_label or estimated.labels[i] == truth.labels[j]:
                    value = cost(estimated, i, truth, j)
                    if best is None or better(value, best[1]):
                        best = (j, value)
            score = float(estimated.scores[i])
            if best is not None and better(best[1], threshold):
                free.remove(best[0])
                weight = _weight(estimated, i, truth, best[0], unsigned)
                results[int(truth.labels[best[0]])].append((score, weight, True))
            else:
                results[int(estimated.labels[i])].append((score, 0.0, False))
    return [_score_class(found, count) for found, count in zip(results, counts, strict=True)]


def _score_class(found: list[tuple[float, float, bool]], count: int) -> dict[str, float]:
    scores: dict[str, Any] = {"ap": math.nan, "aph": math.nan, "max_f1": math.nan, "confidence": math.nan}
    if not found:
        return scores if count == 0 else {**scores, "ap": 0.0, "aph": 0.0}
    ordered = [found[k] for k in np.argsort([score for score, _, _ in found], kind="stable")[::-1]]
    for name in ("ap", "aph"):
        hits = false_alarms = 0.0
        precision, recall = [], []
        for _, weight, hit in ordered:
            hits += (weight if name == "aph" else 1.0) if hit else 0.0
            false_alarms += 0.0 if hit else 1.0
            precision.append(hits / (hits + false_alarms) if hits + false_alarms else 0.0)
            recall.append(hits / count if count else 0.0)
        envelope = [max(precision[k:]) for k in range(len(precision))]
        sampled = np.interp(np.linspace(0, 1, 101), recall, envelope, right=0)[11:]
        scores[name] = float(np.mean(np.clip(sampled - 0.1, 0, None))) / 0.9
        if name == "ap":
            for (score, _, _), p, r in zip(ordered, precision, recall, strict=True):
                if p + r > 0:
                    f1 = 2 * p * r / (p + r)
                    if math.isnan(scores["max_f1"]) or f1 > scores["max_f1"]:
                        scores["max_f1"], scores["confidence"] = f1, score
    return scores
