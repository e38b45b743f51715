"""The metric that the demo's training ends with is nuScenes'."""

from __future__ import annotations

import numpy as np
import pytest

from demo.objects import CLASSES
from exporter.demo_models.heldout import Detections, evaluate


def _detections(rng: np.random.Generator, count: int, scores: bool) -> Detections:
    return Detections(
        rng.uniform(-45, 45, (count, 2)),
        rng.uniform(-np.pi, np.pi, count),
        rng.normal(0, 3, (count, 2)),
        rng.integers(0, 5, count),
        rng.random(count) if scores else np.ones(count),
    )


def test_ground_truth_as_prediction_is_perfect() -> None:
    rng = np.random.default_rng(0)
    truths = [_detections(rng, 30, scores=False) for _ in range(4)]
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
    truths = [_detections(rng, 40, scores=False) for _ in range(6)]
    predictions = []
    for truth in truths:
        noisy = Detections(
            truth.centers + rng.normal(0, 0.8, truth.centers.shape),
            truth.yaws + rng.normal(0, 0.2, len(truth.yaws)),
            truth.velocities,
            truth.labels,
            rng.random(len(truth.labels)),
        )
        predictions.append(noisy)
    boxes = []
    for group in (predictions, truths):
        found = EvalBoxes()
        for index, frame in enumerate(group):
            found.add_boxes(
                str(index),
                [
                    DetectionBox(
                        sample_token=str(index),
                        translation=(*frame.centers[row].tolist(), 0.0),
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
