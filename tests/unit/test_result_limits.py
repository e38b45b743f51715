"""Limits on results tell faults from rounding: what is of use is judged, and what shifts, not what scatters."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from onnx import helper, parser

from shared.onnx_graph import outputs_behind
from shared.tasks import classification, detection2d, detection3d
from shared.tasks.classification import ClassScores
from shared.tasks.detection2d import Boxes2D
from shared.tasks.detection3d import Boxes3D
from verifier.overrides import apply_overrides
from verifier.results import ResultStatistics
from verifier.statistics import OutputStatistics
from verifier.tolerances import default_tolerance, judge, tolerance_from_json

KEPT = detection3d.TASK.operating_score


def grid(count: int = 200, low: float = 0.1, high: float = 1.0) -> Boxes3D:
    """Boxes 3 m apart, scores from low to high."""
    rng = np.random.default_rng(1)
    cells = np.arange(count)
    centers = np.column_stack([cells % 20 * 3.0, cells // 20 * 3.0, rng.normal(0, 1, count)])
    yaws, velocities = rng.uniform(-3, 3, count), rng.normal(0, 3, (count, 2))
    labels, scores = np.arange(count) % 3, np.linspace(low, high, count)
    return Boxes3D.build(centers, rng.uniform(0.5, 5, (count, 3)), yaws, velocities, labels=labels, scores=scores)


def failures(reference: Any, test: Any, policy: str = "fp16", task: Any = detection3d.TASK, *more: str) -> list[str]:
    """What the verifier says of results alone."""
    collected = ResultStatistics(task)
    collected.add(0, reference, test)
    stored = {
        "problems": [],
        "outputs": {},
        "results": collected.summary(),
        "score_threshold": 0.1,
        "agreement": {},
    }
    limits = apply_overrides(default_tolerance(policy, task), more, [])
    return [line for line in judge(stored, limits) if "no raw output" not in line]


def test_what_nobody_keeps_is_judged_in_fp32_alone() -> None:
    boxes = grid()
    useless = boxes.scores < KEPT
    noise = np.where(useless, np.random.default_rng(0).normal(0, 0.5, len(boxes)), 0)
    turned = replace(boxes, yaws=(boxes.yaws + noise).astype(np.float32))
    assert failures(boxes, turned) == []
    assert [line.split(":")[0] for line in failures(boxes, turned, "fp32")] == ["results yaw"]
    lost = boxes.select(~useless | (np.arange(len(boxes)) % 2 == 0))
    assert failures(boxes, lost) == []
    assert [line.split(",")[0] for line in failures(boxes, lost, "fp32")] == ["results unmatched"]


def test_an_extreme_among_many_is_no_fault() -> None:
    boxes = grid()
    yaws = boxes.yaws.copy()
    yaws[np.flatnonzero(boxes.scores > 0.5)[:5]] += np.float32(np.pi)
    assert failures(boxes, replace(boxes, yaws=yaws)) == []


def test_a_tenth_of_what_is_kept_is_a_fault() -> None:
    boxes = grid()
    kept = np.flatnonzero(boxes.scores >= KEPT)
    yaws = boxes.yaws.copy()
    yaws[kept[: len(kept) // 8]] += np.float32(np.pi)
    assert any(line.startswith("results yaw") for line in failures(boxes, replace(boxes, yaws=yaws)))


@pytest.mark.parametrize("shift", list(detection3d.TASK.shifts))
def test_a_shift_is_named_and_scatter_of_its_size_is_not(shift: str) -> None:
    boxes = grid()
    scatter = np.random.default_rng(0).choice([-1.0, 1.0], len(boxes))

    def moved(signs: np.ndarray | float) -> Boxes3D:
        values = np.broadcast_to(np.asarray(signs, np.float64), len(boxes))
        ahead = np.column_stack([np.cos(boxes.yaws), np.sin(boxes.yaws)])
        zeros = np.zeros(len(boxes))
        offsets = {
            "forward": np.column_stack([ahead, zeros]) * 0.03,
            "left": np.column_stack([-ahead[:, 1], ahead[:, 0], zeros]) * 0.03,
            **{name: np.eye(3)[axis] * 0.03 for axis, name in enumerate("xyz")},
        }
        sizes = {name: np.eye(3)[axis] * 0.03 for axis, name in enumerate(("length", "width", "height"))}
        return replace(
            boxes,
            centers=(boxes.centers + values[:, None] * offsets.get(shift, 0.0)).astype(np.float32),
            sizes=(boxes.sizes * (1 + values[:, None] * sizes.get(shift, 0.0))).astype(np.float32),
            yaws=(boxes.yaws + values * 0.03 * (shift == "turn")).astype(np.float32),
            velocities=(boxes.velocities + values[:, None] * ahead * 0.05 * (shift == "speed")).astype(np.float32),
            scores=(boxes.scores + values * 0.006 * (shift == "confidence")).astype(np.float32),
        )

    assert [line.split(":")[0] for line in failures(boxes, moved(1.0))] == [f"results shifted, {shift}"]
    assert [line.split(":")[0] for line in failures(boxes, moved(-1.0))] == [f"results shifted, {shift}"]
    assert failures(boxes, moved(scatter)) == []
    assert failures(boxes, moved(1.0), "fp16", detection3d.TASK, f"results.{shift}=0.1") == []


def test_what_comes_and_goes_at_the_operating_score_is_not_unmatched() -> None:
    boxes = grid()
    near = (boxes.scores >= KEPT) & (boxes.scores < KEPT + 0.018)
    assert near.sum() > 2
    assert failures(boxes, boxes.select(~near)) == []
    best = boxes.scores > 0.95
    assert [line.split(",")[0] for line in failures(boxes, boxes.select(~best))] == ["results unmatched"]
    assert [line.split(",")[0] for line in failures(boxes.select(~best), boxes)] == ["results unmatched"]


def test_label_flips_of_what_is_kept_count() -> None:
    boxes = grid()
    best = boxes.scores > 0.95
    flipped = replace(boxes, labels=np.where(best, (boxes.labels + 1) % 3, boxes.labels))
    assert [line.split(",")[0] for line in failures(boxes, flipped)] == ["results unmatched"]


def test_where_nothing_is_kept_everything_is_judged() -> None:
    weak = grid(high=0.3)
    assert failures(weak, weak) == []
    turned = replace(weak, yaws=weak.yaws + np.float32(0.5))
    assert any(line.startswith("results yaw") for line in failures(weak, turned))
    assert [line.split(",")[0] for line in failures(weak, weak.select(weak.scores > 0.2))] == ["results unmatched"]


def test_all_that_is_kept_lost_is_not_nothing_kept() -> None:
    boxes = grid()
    weak = replace(boxes, scores=boxes.scores * np.float32(0.3))
    assert failures(boxes, weak)
    assert failures(boxes, boxes.select(boxes.scores < 0.3))


def test_image_boxes_and_classes_shift_too() -> None:
    rng = np.random.default_rng(0)
    corner = np.column_stack([np.arange(100) % 10 * 90.0, np.arange(100) // 10 * 90.0])
    boxes = Boxes2D.build(np.column_stack([corner, corner + rng.uniform(30, 70, (100, 2))]), scores=np.full(100, 0.8))
    right = replace(boxes, corners=boxes.corners + np.array([0, 0, 0.5, 0], np.float32))
    assert [line.split(":")[0] for line in failures(boxes, right, "fp16", detection2d.TASK)] == [
        "results shifted, right"
    ]
    logits = rng.normal(0, 2, (300, 2))
    scores, biased = ClassScores.build(logits), ClassScores.build(logits + np.array([0.03, 0.0]), logits.argmax(axis=1))
    assert [line.split(":")[0] for line in failures(scores, biased, "fp16", classification.TASK)] == [
        "results shifted, first_class"
    ]


def test_rows_that_a_network_sorts_are_judged_by_their_results() -> None:
    statistics = OutputStatistics()
    rows = np.random.default_rng(0).normal(0, 1, (1, 8, 200)).astype(np.float32)
    statistics.add(0, rows, rows[..., ::-1])
    stored = {
        "problems": [],
        "outputs": {"rows": statistics.summary()},
        "results": {**ResultStatistics(detection3d.TASK).summary()},
        "score_threshold": 0.1,
        "agreement": {},
    }
    limits = default_tolerance("fp16", detection3d.TASK)
    assert [line.split(":")[0] for line in judge(stored, limits)] == ["rows SNR [dB]", "rows cosine"]
    ranked = replace(limits, tensors=replace(limits.tensors, max_abs=0.1), ranked=["rows"])
    assert judge(stored, ranked) == []
    assert tolerance_from_json(asdict(ranked), detection3d.TASK) == ranked
    own = apply_overrides(ranked, ["rows.cosine=0.5", "rows=0.2"], ["rows"])
    assert [line.split(":")[0] for line in judge(stored, own)] == ["rows max |difference|", "rows cosine"]


def test_outputs_behind_a_ranking_are_found() -> None:
    graph = parser.parse_graph("""
        net (float[1, 9] scores, int64[1] count) => (float[1, 3] best, float[1, 3] doubled, float[1, 9] all) {
            best, places = TopK (scores, count)
            doubled = Add (best, best)
            all = Relu (scores)
        }
    """)
    model = helper.make_model(graph)
    assert outputs_behind(model, {"TopK"}) == {"best", "doubled"}
    assert outputs_behind(model, {"NonMaxSuppression"}) == set()
