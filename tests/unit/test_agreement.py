"""The verifier's small metrics: equal to the evaluator's where they are the same, and they see what they are for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.metrics import nuscenes
from shared.metrics.box_table import table_of
from shared.tasks import find
from shared.tasks.classification import ClassScores
from shared.tasks.detection2d import Boxes2D
from shared.tasks.detection3d import Boxes3D

CLASSES = ["car", "truck", "pedestrian"]


def frame(rng: np.random.Generator, count: int, *, scored: bool) -> Boxes3D:
    """Boxes within 100 m, every class among them."""
    return Boxes3D.build(
        rng.uniform(-60, 60, (count, 3)),
        rng.uniform(0.5, 5, (count, 3)),
        rng.uniform(-3, 3, count),
        rng.normal(0, 3, (count, 2)),
        labels=np.arange(count) % len(CLASSES),
        scores=rng.uniform(0.1, 1, count) if scored else np.ones(count),
        num_points=np.full(count, 9),
    )


def noisy(rng: np.random.Generator, boxes: Boxes3D, clutter: int) -> Boxes3D:
    """What a model would make of it: some lost, the rest moved, and clutter."""
    kept = boxes.select(rng.random(len(boxes)) < 0.8)
    more = frame(rng, clutter, scored=True)
    columns = {name: np.concatenate([getattr(kept, name), getattr(more, name)]) for name in Boxes3D.columns()}
    columns["centers"] = (columns["centers"] + rng.normal(0, 0.7, columns["centers"].shape)).astype(np.float32)
    columns["scores"] = rng.uniform(0.1, 1, len(columns["scores"])).astype(np.float32)
    return Boxes3D(**columns)


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_map_is_the_evaluators(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = [frame(rng, 30, scored=False) for _ in range(4)]
    results = [noisy(rng, boxes, 12) for boxes in truth]
    candidates = nuscenes.find_candidates(table_of(results), table_of(truth))
    expected = nuscenes.score_range(candidates, CLASSES, 0.0, 200.0)
    found = find("detection3d").agreement(truth, results)["mAP"]
    assert found == pytest.approx(expected.mean_average_precision, abs=1e-9)


def test_a_run_agrees_with_itself() -> None:
    rng = np.random.default_rng(0)
    boxes = [frame(rng, 30, scored=True) for _ in range(3)]
    assert find("detection3d").agreement(boxes, boxes) == pytest.approx({"mAP": 1.0, "mAPH": 1.0})
    scores = [ClassScores.build(rng.normal(size=(2, 3)))]
    assert find("classification").agreement(scores, scores) == {"accuracy": 1.0}
    images = [Boxes2D.build([[0, 0, 10, 10], [20, 20, 30, 40]], [0, 1], [0.9, 0.8])]
    assert find("detection2d").agreement(images, images) == pytest.approx({"mAP": 1.0})


def test_heading_counts_in_maph_alone() -> None:
    rng = np.random.default_rng(1)
    boxes = [frame(rng, 30, scored=True)]
    back = [replace(boxes[0], yaws=boxes[0].yaws + np.float32(np.pi))]
    found = find("detection3d").agreement(boxes, back)
    assert found["mAP"] == pytest.approx(1.0) and found["mAPH"] < 1e-6
    hair = [replace(boxes[0], yaws=boxes[0].yaws + np.float32(1e-5))]
    assert find("detection3d").agreement(boxes, hair)["mAPH"] == pytest.approx(1.0, abs=1e-5)
    quarter = [replace(boxes[0], yaws=boxes[0].yaws + np.float32(np.pi / 2))]
    assert 0.1 < find("detection3d").agreement(boxes, quarter)["mAPH"] < 0.6


def test_lost_false_and_mislabeled_results_cost() -> None:
    rng = np.random.default_rng(2)
    boxes = [frame(rng, 30, scored=True)]
    lost = [boxes[0].select(np.arange(15))]
    flipped = [replace(boxes[0], labels=(boxes[0].labels + 1) % 3)]
    clutter = [noisy(rng, boxes[0].select(np.zeros(0, np.int64)), 50)]
    values = [find("detection3d").agreement(boxes, results)["mAP"] for results in (lost, flipped, clutter)]
    assert 0.3 < values[0] < 0.6 and max(values[1:]) < 0.2


def test_results_with_nan_and_nothing_at_all() -> None:
    rng = np.random.default_rng(3)
    boxes = frame(rng, 9, scored=True)
    broken = replace(boxes, scores=np.where(np.arange(9) < 3, np.nan, boxes.scores).astype(np.float32))
    assert 0 < find("detection3d").agreement([boxes], [broken])["mAP"] < 1
    assert find("detection3d").agreement([boxes], [Boxes3D.empty()]) == {"mAP": 0.0, "mAPH": 0.0}
    assert find("detection3d").agreement([Boxes3D.empty()], [boxes]) == {}
    assert find("classification").agreement([ClassScores.empty()], [ClassScores.empty()]) == {}
