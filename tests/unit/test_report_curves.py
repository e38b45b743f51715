"""Curves of the report over score and distance, against counts made by hand."""

from __future__ import annotations

import re

import numpy as np
import pytest

from evaluator.report import over_distance, over_score
from evaluator.report.boxes3d import Frames
from evaluator.report.over_score import Detections, curves
from shared.metrics.box_table import BoxTable, table_of
from shared.tasks.detection3d import Boxes3D


def _detections(best: float | None = 0.5) -> Detections:
    scores = np.array([0.3, 0.9, 0.5, 0.7])
    right, wrong = np.array([True, True, True, False]), np.array([False, False, False, True])
    return Detections("car", scores, right, wrong, 5, best)


def test_counts_at_every_score() -> None:
    f1, precision, recall = curves(_detections(), np.array([0.0, 0.3, 0.4, 0.5, 0.6, 0.9, 0.95]))
    np.testing.assert_allclose(recall, [0.6, 0.6, 0.4, 0.4, 0.2, 0.2, 0.0])
    np.testing.assert_allclose(precision, [0.75, 0.75, 2 / 3, 2 / 3, 0.5, 1.0, np.nan])
    np.testing.assert_allclose(f1, [6 / 9, 6 / 9, 4 / 8, 4 / 8, 2 / 7, 2 / 6, 0.0])


def test_the_best_score_is_marked_and_named() -> None:
    block = over_score.charts([_detections(), Detections("tram", *[np.zeros(0)] * 3, 0, None)], "rule")
    (chart,) = block.charts
    assert chart.note == "from 0.50: F1 0.500, precision 0.667, recall 0.400"
    assert 'class="mark"' in chart.svg and chart.svg.count("<polyline") == 3
    (nothing,) = over_score.charts([Detections("car", *[np.zeros(0)] * 3, 2, None)], "rule").charts
    assert nothing.note == "nothing found" and "mark" not in nothing.svg


def _row(distances: list[float], yaw: float, scores: float) -> BoxTable:
    count = len(distances)
    centers = np.stack([distances, np.zeros(count), np.zeros(count)], axis=1)
    return table_of(
        [Boxes3D.build(centers, np.ones((count, 3)), np.full(count, yaw), labels=[0] * count, scores=[scores] * count)]
    )


def test_recall_and_errors_by_distance() -> None:
    # Six boxes at 20 to 25 m, all found, turned by 0.2; six at 40 to 65 m, none found.
    near, far = [20.0, 21, 22, 23, 24, 25], [40.0, 41, 42, 43, 44, 45]
    frames = Frames(_row(near + far, 0.0, 1.0), {"onnx": _row(near, 0.2, 0.9)})
    block = over_distance.charts(frames, ["onnx"], ["car"])
    drawn = {chart.title: re.findall(r'points="([^"]*)"', chart.svg) for chart in block.charts}
    assert [len(points.split()) for points in drawn["Recall"]] == [2]
    (first, second) = (float(place.split(",")[1]) for place in drawn["Recall"][0].split())
    assert first < second, "all near ones are found, none of those far away"
    assert len(drawn["Heading off by [rad]"][0].split()) == 1
    found = over_distance._by_distance(frames.predictions["onnx"], frames.truths, ["car"])
    assert found["recall"] == [(25.0, 1.0), (45.0, 0.0)]
    assert found["AOE"] == [(25.0, pytest.approx(0.2))]
