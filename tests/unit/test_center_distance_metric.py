"""The metric of training and quantization is nuScenes': that of nuscenes-devkit, and of our evaluator."""

from __future__ import annotations

import numpy as np
import pytest

from demo.objects import CLASSES
from evaluator.boxes3d import nuscenes
from evaluator.boxes3d.table import table_of
from exporter.center_distance import evaluate
from shared.tasks.detection3d import Boxes3D


def _truth(rng: np.random.Generator, count: int, spread: float = 45) -> Boxes3D:
    return Boxes3D.build(
        centers=rng.uniform(-spread, spread, (count, 3)),
        sizes=np.ones((count, 3)),
        yaws=rng.uniform(-np.pi, np.pi, count),
        velocities=rng.normal(0, 3, (count, 2)),
        labels=rng.integers(0, 5, count),
        num_points=np.ones(count),
    )


def _found(rng: np.random.Generator, truth: Boxes3D) -> Boxes3D:
    """Predictions of a mediocre model."""
    return Boxes3D.build(
        centers=truth.centers + rng.normal(0, 0.8, truth.centers.shape),
        sizes=truth.sizes,
        yaws=truth.yaws + rng.normal(0, 0.2, len(truth)),
        velocities=truth.velocities,
        labels=truth.labels,
        scores=rng.random(len(truth)),
    )


def test_ground_truth_as_prediction_is_perfect() -> None:
    rng = np.random.default_rng(0)
    truths = [_truth(rng, 30) for _ in range(4)]
    results = evaluate(truths, truths, CLASSES, 50.0)
    assert results["mAP"] == pytest.approx(1.0)
    assert results["mAOE"] == pytest.approx(0.0, abs=1e-9)
    assert results["mAVE"] == pytest.approx(0.0, abs=1e-9)


def test_average_precision_equals_the_devkit() -> None:
    algo = pytest.importorskip("nuscenes.eval.detection.algo")
    from nuscenes.eval.common.data_classes import EvalBoxes
    from nuscenes.eval.common.utils import center_distance
    from nuscenes.eval.detection.data_classes import DetectionBox

    rng = np.random.default_rng(5)
    truths = [_truth(rng, 40) for _ in range(6)]
    predictions = [_found(rng, truth) for truth in truths]
    boxes = []
    for group in (predictions, truths):
        found = EvalBoxes()
        for index, frame in enumerate(group):
            found.add_boxes(
                str(index),
                [
                    DetectionBox(
                        sample_token=str(index),
                        translation=frame.centers[row].tolist(),
                        size=(1.0, 1.0, 1.0),
                        rotation=(float(np.cos(frame.yaws[row] / 2)), 0.0, 0.0, float(np.sin(frame.yaws[row] / 2))),
                        velocity=tuple(frame.velocities[row].tolist()),
                        detection_name="car" if frame.labels[row] == 0 else "truck",
                        detection_score=float(frame.scores[row]),
                        attribute_name="",
                    )
                    for row in range(len(frame.labels))
                    if frame.labels[row] < 2
                ],
            )
        boxes.append(found)
    results = evaluate(predictions, truths, CLASSES, 1000.0)
    for name in ("car", "truck"):
        data = [algo.accumulate(boxes[1], boxes[0], name, center_distance, threshold) for threshold in (0.5, 1, 2, 4)]
        expected = np.mean([algo.calc_ap(d, 0.1, 0.1) for d in data])
        assert results[f"AP/{name}"] == pytest.approx(expected, abs=1e-9)
        assert results[f"AOE/{name}"] == pytest.approx(algo.calc_tp(data[2], 0.1, "orient_err"), abs=1e-6)


def test_map_equals_the_evaluators() -> None:
    rng = np.random.default_rng(6)
    truths = [_truth(rng, 60, spread=110) for _ in range(5)]
    predictions = [_found(rng, truth) for truth in truths]
    candidates = nuscenes.find_candidates(table_of(predictions), table_of(truths))
    for limit in (50.0, 121.0):
        expected = nuscenes.score_range(candidates, CLASSES, 0.0, limit).mean_average_precision
        assert 0.1 < expected < 0.9
        assert evaluate(predictions, truths, CLASSES, limit)["mAP"] == pytest.approx(expected, abs=1e-12)
