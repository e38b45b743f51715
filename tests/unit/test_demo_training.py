"""The demo's training: targets, losses and voxels are mmdet3d's."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.exporter

torch = pytest.importorskip("torch")
pytest.importorskip("mmengine")

from exporter.demo_lidar import (  # noqa: E402
    augmented,
    labeled_boxes,
    merged_points,
    training_frame,
    voxelize,
)
from exporter.lidar.training import Frame, boxes_of_mmdet3d, losses  # noqa: E402
from exporter.models.centerpoint import demo as training  # noqa: E402
from exporter.training_config import read_training_config  # noqa: E402
from shared.tasks.detection3d import Boxes3D  # noqa: E402

CONFIG = Path(__file__).parents[2] / "configs" / "train" / "centerpoint_demo.py"


def test_a_step_is_what_mmdet3d_would_compute() -> None:
    """Frames, targets made ahead, voxels and losses: equal to the model's own preprocessor and ``loss``."""
    options = argparse.Namespace(seed=3, steps=1, batch=2, device="cpu", config=CONFIG)
    torch.manual_seed(0)
    demo, (plain, _) = training.Training(options), training.build(CONFIG)
    plain.load_state_dict(demo.model.state_dict())
    items = [demo.sample(0), demo.sample(1)]
    demo.model.eval()
    plain.eval()
    with torch.no_grad():
        loss, ours = demo.loss(demo.collate(items), 0.0)
        frames = [
            Frame(torch.from_numpy(points), boxes_of_mmdet3d(boxes), torch.from_numpy(boxes.labels))
            for points, boxes in items
        ]
        theirs = losses(plain, frames)
    assert float(loss) == pytest.approx(sum(float(value) for value in ours.values()))
    assert {name: float(value) for name, value in ours.items()} == pytest.approx(
        {name: float(value) for name, value in theirs.items()}, rel=1e-3
    )


def test_voxels_equal_the_framework() -> None:
    from mmdet3d.models.data_preprocessors.voxelize import VoxelizationByGridShape

    layer = read_training_config(CONFIG).model["data_preprocessor"]["voxel_layer"]
    points = torch.from_numpy(merged_points(training_frame(seed=3, index=1)))
    voxels, counts, cells = voxelize(torch.cat([torch.zeros(len(points), 1), points], dim=1), layer)
    expected = VoxelizationByGridShape(**layer).eval()(points)
    order = torch.argsort(expected[1][:, 1].long() * 10_000 + expected[1][:, 2])
    torch.testing.assert_close(cells[:, 1:], expected[1][order].int(), rtol=0, atol=0)
    torch.testing.assert_close(counts.int(), expected[2][order].int(), rtol=0, atol=0)
    torch.testing.assert_close(voxels, expected[0][order], rtol=0, atol=0)


def test_augmentation_moves_points_and_boxes_together() -> None:
    frame = training_frame(seed=3, index=2)
    points, boxes = merged_points(frame), labeled_boxes(frame)
    before = _inside(points, boxes)
    for draw in range(8):
        moved_points, moved_boxes = augmented(points, boxes, np.random.default_rng(draw))
        if len(moved_points) != len(points):
            continue
        after = _inside(moved_points, moved_boxes)
        assert np.abs(after - before).max() <= 1  # a point on a face may fall either side
        # A point ahead of an object stays ahead of it: the heading is mirrored with the world.
        ahead = boxes.centers[:, :2] + np.stack([np.cos(boxes.yaws), np.sin(boxes.yaws)], axis=1)
        as_points = np.column_stack([ahead, np.zeros((len(ahead), 2))]).astype(np.float32)
        moved_ahead, _ = augmented(as_points, boxes, np.random.default_rng(draw))
        expected = moved_boxes.centers[:, :2] + np.stack([np.cos(moved_boxes.yaws), np.sin(moved_boxes.yaws)], axis=1)
        np.testing.assert_allclose(moved_ahead[:, :2], expected, atol=1e-3)


def _inside(points: np.ndarray, boxes: Boxes3D) -> np.ndarray:
    counts = []
    for center, size, yaw in zip(boxes.centers, boxes.sizes, boxes.yaws, strict=True):
        offset = (points[:, :3] - center).astype(np.float64)
        cos, sin = np.cos(float(yaw)), np.sin(float(yaw))
        local = np.stack(
            [cos * offset[:, 0] + sin * offset[:, 1], cos * offset[:, 1] - sin * offset[:, 0], offset[:, 2]], axis=1
        )
        counts.append(np.count_nonzero((np.abs(local) <= size / 2).all(axis=1)))
    return np.array(counts)
