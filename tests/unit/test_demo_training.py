"""The demo's training: targets, losses and voxels are mmdet3d's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.exporter

torch = pytest.importorskip("torch")
pytest.importorskip("mmengine")

from exporter.demo_lidar import (  # noqa: E402
    augmented,
    build,
    labeled_boxes,
    merged_points,
    training_frame,
    voxelize,
)
from exporter.models.centerpoint import demo as training  # noqa: E402
from exporter.models.centerpoint.demo_frames import Grid, head_targets  # noqa: E402
from shared.tasks.detection3d import Boxes3D  # noqa: E402

CONFIG = Path(__file__).parents[2] / "configs" / "train" / "centerpoint_demo.py"


@pytest.fixture(scope="module")
def built() -> tuple[Any, dict[str, Any]]:
    torch.manual_seed(0)
    return build(CONFIG)


@pytest.fixture(scope="module")
def boxes() -> Boxes3D:
    found = labeled_boxes(training_frame(seed=3, index=0))
    # mmdet3d rounds toward zero and so takes objects just outside the grid into its first cells; we don't.
    kept = np.abs(found.centers[:, :2]).max(axis=1) < 120.0
    return found.select(kept)


def _maps(targets: dict[str, Any], grid: Grid) -> dict[str, Any]:
    """Make head outputs that say exactly what the targets say."""
    heat = torch.from_numpy(np.where(targets["heatmap"] == 1.0, 0.9, 1e-4))
    maps = {"heatmap": torch.log(heat / (1 - heat))[None].float()}
    flat = torch.zeros(10, grid.height * grid.width)
    real = targets["mask"] > 0
    flat[:, targets["cells"][real]] = torch.from_numpy(targets["values"][real].T)
    whole = flat.reshape(1, 10, grid.height, grid.width)
    for name, channels in (("reg", (0, 2)), ("height", (2, 3)), ("dim", (3, 6)), ("rot", (6, 8)), ("vel", (8, 10))):
        maps[name] = whole[:, slice(*channels)].contiguous()
    return maps


def test_targets_decode_to_the_boxes_they_were_made_from(built: tuple[Any, dict[str, Any]], boxes: Boxes3D) -> None:
    from mmdet3d.structures import LiDARInstance3DBoxes

    model, section = built
    grid = Grid.from_config(section)
    maps = _maps(head_targets(boxes, grid), grid)
    found = model.pts_bbox_head.predict_by_feat(([maps],), [{"box_type_3d": LiDARInstance3DBoxes}])[0]
    decoded = found.bboxes_3d.tensor.numpy()
    centers = found.bboxes_3d.gravity_center.numpy()
    gaps = np.linalg.norm(centers[:, None] - boxes.centers[None], axis=2)
    nearest = gaps.argmin(axis=1)
    assert len(decoded) >= 0.9 * len(boxes.labels)  # circle suppression takes the nearer of two within 1 m
    assert gaps.min(axis=1).max() < 1e-3
    np.testing.assert_allclose(decoded[:, 3:6], boxes.sizes[nearest], atol=1e-3)
    np.testing.assert_allclose(np.sin(decoded[:, 6] - boxes.yaws[nearest]), 0.0, atol=1e-3)
    np.testing.assert_allclose(np.cos(decoded[:, 6] - boxes.yaws[nearest]), 1.0, atol=1e-3)
    np.testing.assert_allclose(decoded[:, 7:9], boxes.velocities[nearest], atol=1e-3)
    np.testing.assert_array_equal(found.labels_3d.numpy(), boxes.labels[nearest])


def test_losses_equal_those_of_the_head(built: tuple[Any, dict[str, Any]], boxes: Boxes3D) -> None:
    from mmdet3d.structures import LiDARInstance3DBoxes
    from mmengine.structures import InstanceData

    model, section = built
    grid = Grid.from_config(section)
    generator = torch.Generator().manual_seed(1)
    outputs = {
        name: 0.5 * torch.randn(1, channels, grid.height, grid.width, generator=generator)
        for name, channels in (("heatmap", 5), ("reg", 2), ("height", 1), ("dim", 3), ("rot", 2), ("vel", 2))
    }
    targets = {key: torch.from_numpy(value)[None] for key, value in head_targets(boxes, grid).items()}
    heat, box = training.losses(outputs, targets, section["train_cfg"]["pts"]["code_weights"])
    truth = InstanceData()
    truth.bboxes_3d = LiDARInstance3DBoxes(
        torch.from_numpy(np.column_stack([boxes.centers, boxes.sizes, boxes.yaws, boxes.velocities])),
        box_dim=9,
        origin=(0.5, 0.5, 0.5),
    )
    truth.labels_3d = torch.from_numpy(boxes.labels)
    expected = model.pts_bbox_head.loss_by_feat(([dict(outputs)],), [truth])
    assert float(heat) == pytest.approx(float(expected["task0.loss_heatmap"]), rel=1e-4)
    assert float(box) == pytest.approx(float(expected["task0.loss_bbox"]), rel=1e-3)


def test_voxels_equal_the_framework(built: tuple[Any, dict[str, Any]]) -> None:
    from mmdet3d.models.data_preprocessors.voxelize import VoxelizationByGridShape

    _, section = built
    layer = section["data_preprocessor"]["voxel_layer"]
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
