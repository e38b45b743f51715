"""What the demo models answered in engines on an H200 passes in its precision; with a fault on top, it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from shared.tasks.detection3d import Boxes3D
from tests.support import recorded
from verifier.results import ResultStatistics
from verifier.tolerances import default_tolerance, judge

RECORDED = [
    (model, policy) for model in recorded.models() for policy in recorded.policies(recorded.FOLDER / f"{model}.npz")
]


def test_every_demo_was_recorded() -> None:
    policies = {model: {policy for name, policy in RECORDED if name == model} for model, _ in RECORDED}
    assert policies["centerpoint"] >= {"fp32", "fp32_tf32", "fp16", "int8"}
    assert policies["calibration"] >= {"fp32", "fp32_tf32", "fp16", "int8"}
    assert policies["yolox"] >= {"fp32", "fp32_tf32", "fp16", "int8"}


@pytest.mark.parametrize(("model", "policy"), RECORDED)
def test_engines_pass_in_their_precision(model: str, policy: str) -> None:
    task, compared = recorded.comparison(recorded.FOLDER / f"{model}.npz", policy)
    assert compared["results"]["operating"]["matched"] > 50
    assert judge(compared, default_tolerance(policy, task)) == []


FAULTS: dict[str, Callable[[Boxes3D], Any]] = {
    "sign of yaw": lambda boxes: {"yaws": -boxes.yaws},
    "length and width exchanged": lambda boxes: {"sizes": boxes.sizes[:, [1, 0, 2]]},
    "boxes two percent too long": lambda boxes: {"sizes": boxes.sizes * np.array([1.02, 1, 1], np.float32)},
    "sign of the velocity": lambda boxes: {"velocities": -boxes.velocities},
    "bottom taken for the center": lambda boxes: {
        "centers": boxes.centers - boxes.sizes[:, 2:] * np.array([0, 0, 0.5], np.float32)
    },
    "off by a tenth of a voxel": lambda boxes: {"centers": boxes.centers + np.array([0.04, 0, 0], np.float32)},
    "scores two percent too low": lambda boxes: {"scores": boxes.scores * np.float32(0.98)},
    "turned by a degree and a half": lambda boxes: {"yaws": boxes.yaws + np.float32(0.026)},
    "two classes exchanged": lambda boxes: {"labels": np.where(boxes.labels < 2, 1 - boxes.labels, boxes.labels)},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_on_top_of_an_engines_rounding_is_told_from_it(fault: str) -> None:
    path, policy = recorded.FOLDER / "centerpoint.npz", "fp16"
    task, compared = recorded.comparison(path, policy)
    statistics = ResultStatistics(task)
    for sample, (reference, test) in enumerate(zip(*recorded.answers(path, policy), strict=True)):
        statistics.add(sample, reference, replace(test, **FAULTS[fault](test)))
    failures = judge({**compared, "results": statistics.summary()}, default_tolerance(policy, task))
    assert failures and all(line.startswith("results") for line in failures)
