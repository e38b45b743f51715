"""Pipelines step by step: the same answers as in one go, from every step that was kept and read back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.models.calibration.steps import CameraView
from runtime.pipeline import Interface, Pipeline, PipelineInput, Step, build_pipeline, one_array, run_steps, steps_of
from runtime.swap import split
from shared.errors import UsageError
from shared.traces import read_step, write_step
from tests.support import calibration_data, tiny_centerpoint, tiny_yolox


class CenterPointSession:
    """A session whose components are sums: enough to see what reaches them."""

    settings: dict[str, Any] = {}  # noqa: RUF012 (never written)

    def run(self, component: str, inputs: Any) -> dict[str, np.ndarray]:
        """Sums of the features; maps that depend on the canvas."""
        if component == "pts_voxel_encoder":
            features = inputs["input_features"].sum(axis=(1, 2), keepdims=True)
            return {"pillar_features": np.repeat(features, tiny_centerpoint.CHANNELS, axis=2).astype(np.float32)}
        canvas = inputs["spatial_features"]
        small = canvas[:, :1, ::2, ::2]
        channels = {"heatmap": len(tiny_centerpoint.CLASSES), **tiny_centerpoint.HEADS}
        return {
            name: np.concatenate([np.tanh(small / (3 + index)) for index in range(count)], axis=1)
            for name, count in channels.items()
        }


def same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    for name in one.columns():
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def check(steps: Sequence[Step], data: Any, expected: Any, folder: Path) -> None:
    """Steps from the second on, with what the first gives: kept after each step, and gone on from there."""
    assert len(expected), "something is found"
    state = data
    for number, step in enumerate(steps):
        if number:
            state = step.run(state)
        write_step(folder, 0, step.name, step.packing.pack(state))
        same(run_steps(steps[number + 1 :], step.packing.unpack(read_step(folder, 0, step.name))), expected)
        # Buffers are shared between requests: the state itself is made again.
        state = data if not number else step.packing.unpack(read_step(folder, 0, step.name))
    same(state, expected)


def test_centerpoint(tmp_path: Path) -> None:
    spec, session = tiny_centerpoint.spec(max_voxels=60), CenterPointSession()
    points = np.random.default_rng(0).normal(0, 5, (900, 4)).astype(np.float32)
    pipeline = build_pipeline(spec, session)
    expected = pipeline.infer(points).predictions
    steps = steps_of(pipeline, spec.model)
    assert [step.name for step in steps][:3] == ["read", "voxelize", "decorate"]
    check(steps, points, expected, tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"image": {**tiny_yolox.parameters()["image"], "resize": "autoware", "color": "rgb"}},
        {"nms": {"convention": "autoware", "iou_threshold": 0.45, "class_agnostic": True, "max_boxes": 50}},
    ],
    ids=["mmdet", "rgb", "autoware"],
)
def test_yolox(tmp_path: Path, changes: dict[str, Any]) -> None:
    spec = tiny_yolox.spec(**{"score_threshold": 0.3, **changes})
    session = tiny_yolox.StandIn(tiny_yolox.random_rows(0))
    image = np.random.default_rng(1).integers(0, 256, (90, 150, 3), dtype=np.uint8)
    pipeline = build_pipeline(spec, session)
    expected = pipeline.infer(image).predictions
    steps = steps_of(pipeline, spec.model)
    assert [step.name for step in steps] == ["read", "letterbox", "yolox", "decode", "nms"]
    check(steps, image, expected, tmp_path)


def test_calibration(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.normal(0, 3, (500, 2)), rng.uniform(5, 50, (500, 1)), rng.uniform(0, 255, (500, 1))])
    view = CameraView(
        image=rng.integers(0, 256, (40, 60, 3), dtype=np.uint8),
        points=points.astype(np.float32),
        intrinsics=np.array([[50.0, 0, 30], [0, 50.0, 20], [0, 0, 1]]),
        distortion=np.array([-0.2, 0.05, 0.001, -0.001, 0.0]),
        lidar2cam=np.eye(4),
    )

    class Session:
        settings: dict[str, Any] = {}  # noqa: RUF012 (never written)

        def run(self, component: str, inputs: Any) -> dict[str, np.ndarray]:
            (fused,) = inputs.values()
            sums = fused.reshape(5, -1).astype(np.float64).sum(axis=1)
            return {output: np.array([[sums[:3].sum(), sums[3:] @ [1.0, 2.0]]], np.float32)}

    spec = calibration_data.spec()
    output = spec.components[0].outputs[0].name
    pipeline = build_pipeline(spec, Session())
    expected = pipeline.infer(view).predictions
    other = replace(view, lidar2cam=np.diag([1.0, 1.0, 1.1, 1.0]))
    assert not np.array_equal(build_pipeline(spec, Session()).infer(other).predictions.logits, expected.logits)
    steps = steps_of(pipeline, spec.model)
    assert [step.name for step in steps][1:5] == ["undistort", "project", "paint", "fuse"]
    check(steps, view, expected, tmp_path)
    # Traces of before had no state between `paint` and `fuse`.
    before = [step.name for step in steps if step.name != "paint"]
    assert [segment.name for segment in split(steps, before, "onnx-cpu")] == [
        "paint+fuse" if name == "fuse" else name for name in before
    ]


def test_the_stages_of_a_request_are_the_steps() -> None:
    spec, session = tiny_centerpoint.spec(), CenterPointSession()
    pipeline = build_pipeline(spec, session)
    latency = pipeline.infer(np.zeros((5, 4), np.float32)).latency_ms
    assert ["read", *latency] == [*(step.name for step in steps_of(pipeline, spec.model)), "total"]


class Custom(Pipeline):
    """A pipeline that is no list of steps."""

    def infer(self, data: Any) -> Any:
        raise NotImplementedError


def test_a_pipeline_that_is_no_list_of_steps_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'detr' can't be run step by step.*not a list of steps"):
        steps_of(Custom(Interface(lambda sample: PipelineInput(sample, {}), one_array("data"))), "detr")
