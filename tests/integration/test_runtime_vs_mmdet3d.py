"""Pre- and post-processing against mmdetection3d's own functions, on the same input, frame by frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from runtime.buffers import RowBuffer
from runtime.lidar.circle_nms import circle_nms
from runtime.lidar.grid import VoxelGrid
from runtime.lidar.voxelize import cell_table, voxelize
from runtime.models.centerpoint.decode import decode
from runtime.models.centerpoint.decorate import decorate
from runtime.models.centerpoint.parameters import CenterPointParameters, Decoration
from tests.support import tiny_centerpoint
from tests.support.lidar_frames import real_frames, synthetic_frame
from tests.support.tiny_centerpoint import decoration_of, dense_tensor, grid_of

pytestmark = pytest.mark.exporter

SYNTHETIC = 50

# AWML's 121 m and short range grids, mmdet3d's nuScenes one, KITTI's (not square, minimum not a multiple of the size).
GRIDS = {
    "121m": grid_of((-122.4, -122.4, -3.0), (0.24, 0.24, 8.0), (1020, 1020, 1), 32, 96000),
    "short": grid_of((-51.2, -51.2, -3.0), (0.16, 0.16, 8.0), (640, 640, 1), 32, 64000),
    "nuscenes": grid_of((-51.2, -51.2, -5.0), (0.2, 0.2, 8.0), (512, 512, 1), 20, 30000),
    "kitti": grid_of((0.0, -39.68, -3.0), (0.16, 0.16, 4.0), (432, 496, 1), 32, 2000),
}


def framework_voxels(points: np.ndarray, grid: VoxelGrid) -> tuple[np.ndarray, ...]:
    """What mmdetection3d's voxel layer gives, with whichever operator is installed."""
    import torch

    from exporter.mmcv_ops import provide_mmcv_ops

    provide_mmcv_ops()
    from mmdet3d.models.data_preprocessors.voxelize import VoxelizationByGridShape

    layer = VoxelizationByGridShape(
        point_cloud_range=list(grid.point_cloud_range),
        max_num_points=grid.max_points_per_voxel,
        voxel_size=list(grid.voxel_size),
        max_voxels=(grid.max_voxels, grid.max_voxels),
    ).eval()
    assert tuple(layer.grid_shape) == grid.grid_size
    return tuple(tensor.numpy() for tensor in layer(torch.from_numpy(points)))


def assert_same_voxels(points: np.ndarray, grid: VoxelGrid) -> None:
    voxels = voxelize(points, grid, cell_table(grid))
    dense, coordinates, num_points = framework_voxels(points, grid)
    assert dense_tensor(voxels, grid.max_points_per_voxel).tobytes() == dense.tobytes()
    np.testing.assert_array_equal(voxels.coordinates, coordinates)
    np.testing.assert_array_equal(voxels.num_points, num_points)


@pytest.mark.parametrize("grid", GRIDS)
def test_voxels_of_synthetic_frames_are_bit_equal(grid):
    for seed in range(SYNTHETIC):
        assert_same_voxels(synthetic_frame(seed), GRIDS[grid])


@pytest.mark.parametrize("grid", GRIDS)
def test_voxels_of_real_frames_are_bit_equal(real_data, grid):
    for token, points in real_frames(real_data):
        assert len(points), token
        assert_same_voxels(points, GRIDS[grid])


@pytest.mark.mmcv_ops
def test_the_operator_above_was_the_compiled_one():
    from exporter.mmcv_ops import COMPILED, provide_mmcv_ops

    assert provide_mmcv_ops() == COMPILED


@pytest.mark.mmcv_ops
@pytest.mark.parametrize("grid", GRIDS)
def test_voxels_of_synthetic_frames_equal_the_compiled_operator(grid):
    test_voxels_of_synthetic_frames_are_bit_equal(grid)


@pytest.mark.mmcv_ops
@pytest.mark.parametrize("grid", GRIDS)
def test_voxels_of_real_frames_equal_the_compiled_operator(real_data, grid):
    test_voxels_of_real_frames_are_bit_equal(real_data, grid)


def encoder(kind: str, decoration: Decoration, grid: VoxelGrid) -> Any:
    """A pillar encoder of the framework without its layers: its forward ends with the decorated points."""
    import torch

    from exporter.mmcv_ops import provide_mmcv_ops

    provide_mmcv_ops()
    if kind == "PillarFeatureNet":
        from mmdet3d.models.voxel_encoders import PillarFeatureNet as Encoder
    else:
        from exporter.models.centerpoint.pillar_encoder import BackwardPillarFeatureNet as Encoder
    net = Encoder(
        in_channels=decoration.raw_features,
        feat_channels=(8,),
        with_distance=decoration.distance,
        with_cluster_center=decoration.cluster_center,
        with_voxel_center=decoration.center_axes > 0,
        voxel_size=grid.voxel_size,
        point_cloud_range=grid.point_cloud_range,
        legacy=decoration.legacy,
    ).eval()
    net.pfn_layers = torch.nn.ModuleList()
    return net


@pytest.mark.parametrize(
    ("kind", "decoration"),
    [
        ("PillarFeatureNet", decoration_of(4, True, 3, False, False)),
        ("PillarFeatureNet", decoration_of(5, True, 3, False, False)),
        ("PillarFeatureNet", decoration_of(5, True, 3, False, True)),
        ("PillarFeatureNet", decoration_of(4, True, 3, True, False)),
        ("PillarFeatureNet", decoration_of(4, False, 3, True, True)),
        ("PillarFeatureNet", decoration_of(4, True, 0, False, False)),
        ("BackwardPillarFeatureNet", decoration_of(4, True, 2, False, False)),
        ("BackwardPillarFeatureNet", decoration_of(4, True, 2, False, True)),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.model_dump().values())),
)
def test_decoration_is_the_framework_s(kind, decoration):
    import torch

    grid = GRIDS["short"].model_copy(update={"max_points_per_voxel": 6})
    net = encoder(kind, decoration, grid)
    buffer = RowBuffer(grid.max_voxels * grid.max_points_per_voxel, decoration.num_features)
    for seed in range(6):
        points = np.ascontiguousarray(synthetic_frame(seed)[:, : decoration.raw_features])
        voxels = voxelize(points, grid, cell_table(grid))
        ours = decorate(voxels, decoration, grid, buffer)[: len(voxels)]
        coordinates = np.concatenate([np.zeros((len(voxels), 1), np.int32), voxels.coordinates], axis=1)
        with torch.no_grad():
            theirs = net(
                torch.from_numpy(dense_tensor(voxels, grid.max_points_per_voxel)),
                torch.from_numpy(voxels.num_points),
                torch.from_numpy(coordinates),
            )
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=2e-5)


RANGE = [-61.44, -46.08, -3.0, 61.44, 46.08, 5.0]


def head(tasks: list[list[str]], radius: list[float], max_num: int, threshold: float, norm_bbox: bool) -> Any:
    """mmdetection3d's CenterHead; its weights play no part."""
    from exporter.mmcv_ops import provide_mmcv_ops

    provide_mmcv_ops()
    import mmdet3d.models  # noqa: F401 (registers what the head is built from)
    from mmdet3d.models.dense_heads import CenterHead
    from mmengine.registry import DefaultScope, init_default_scope

    if DefaultScope.get_current_instance() is None:
        init_default_scope("mmdet3d")
    return CenterHead(
        in_channels=8,
        tasks=[{"num_class": len(names), "class_names": names} for names in tasks],
        common_heads={"reg": (2, 2), "height": (1, 2), "dim": (3, 2), "rot": (2, 2), "vel": (2, 2)},
        share_conv_channel=8,
        bbox_coder={
            "type": "CenterPointBBoxCoder",
            "pc_range": RANGE[:2],
            "post_center_range": [-50.0, -40.0, -2.0, 50.0, 40.0, 3.0],
            "max_num": max_num,
            "score_threshold": threshold,
            "out_size_factor": 4,
            "voxel_size": [0.16, 0.16],
            "code_size": 9,
        },
        separate_head={"type": "SeparateHead", "init_bias": -2.19, "final_kernel": 3},
        loss_cls={"type": "mmdet.GaussianFocalLoss", "reduction": "mean"},
        loss_bbox={"type": "mmdet.L1Loss", "reduction": "mean", "loss_weight": 0.25},
        norm_bbox=norm_bbox,
        test_cfg=AttributeDict(nms_type="circle", min_radius=radius, post_max_size=83),
    )


class AttributeDict(dict):
    """A dict with attributes, as mmengine's ConfigDict is."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error


def head_outputs(classes: int, seed: int, height: int = 144, width: int = 192) -> dict[str, np.ndarray]:
    """Maps with peaks of several cells, as a trained head has them."""
    rng = np.random.default_rng(seed)
    maps = {
        name: rng.normal(0, 0.5, (1, channels, height, width))
        for name, channels in {"heatmap": classes, "reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2}.items()
    }
    maps["heatmap"] -= 6
    y, x = np.mgrid[:height, :width]
    for _ in range(120):
        label, row, column = rng.integers(classes), rng.integers(height), rng.integers(width)
        maps["heatmap"][0, label] += rng.uniform(2, 10) * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 3.0)
    return {name: value.astype(np.float32) for name, value in maps.items()}


@pytest.mark.parametrize("norm_bbox", [True, False])
@pytest.mark.parametrize(
    ("tasks", "radius", "max_num", "threshold"),
    [
        ([["car", "truck", "bus", "bicycle", "pedestrian"]], [1.0], 500, 0.1),
        ([["car"], ["truck", "bus"], ["bicycle", "pedestrian"]], [4.0, 12.0, 0.175], 500, 0.1),
        ([["car", "truck"]], [0.85], 60, 0.0),
    ],
)
def test_boxes_from_the_same_head_outputs(tasks, radius, max_num, threshold, norm_bbox):
    import torch
    from mmdet3d.structures import LiDARInstance3DBoxes

    theirs = head(tasks, radius, max_num, threshold, norm_bbox)
    coder = {
        "max_num": max_num,
        "score_threshold": threshold,
        "post_center_range": (-50.0, -40.0, -2.0, 50.0, 40.0, 3.0),
    }
    parameters = CenterPointParameters.model_validate(
        {
            **tiny_centerpoint.parameters(),
            "point_cloud_range": RANGE,
            "voxel_size": (0.16, 0.16, 8.0),
            "out_size_factor": 4,
            "norm_bbox": norm_bbox,
            "bbox_coder": coder,
        }
    )
    for seed in range(8):
        maps = [head_outputs(len(names), 10 * seed + task) for task, names in enumerate(tasks)]
        tensors = [[{name: torch.from_numpy(value.copy()) for name, value in task.items()}] for task in maps]
        with torch.no_grad():
            (expected,) = theirs.predict_by_feat(tensors, [{"box_type_3d": LiDARInstance3DBoxes}])
        ours = []
        first_label = 0
        for task, limit, names in zip(maps, radius, tasks, strict=True):
            boxes = decode(task, parameters)
            boxes = boxes.select(circle_nms(boxes.centers[:, :2], boxes.scores, limit, 83))
            columns = (
                boxes.centers,
                boxes.sizes,
                boxes.yaws,
                boxes.velocities,
                boxes.labels + first_label,
                boxes.scores,
            )
            ours.append(np.concatenate([column.reshape(len(boxes), -1) for column in columns], axis=1))
            first_label += len(names)
        reference = np.concatenate(
            [
                expected.bboxes_3d.gravity_center.numpy(),
                expected.bboxes_3d.tensor[:, 3:].numpy(),
                expected.labels_3d.numpy()[:, None],
                expected.scores_3d.numpy()[:, None],
            ],
            axis=1,
        )
        assert len(reference) > 20
        np.testing.assert_allclose(np.concatenate(ours), reference, rtol=0, atol=1e-4)


def test_circle_nms_is_the_framework_s():
    from exporter.mmcv_ops import provide_mmcv_ops

    provide_mmcv_ops()
    from mmdet3d.models.layers import circle_nms as theirs

    rng = np.random.default_rng(0)
    for radius in (0.175, 0.85, 1.0, 4.0, 12.0):
        for count in (0, 1, 10, 400):
            centers = rng.uniform(-15, 15, (count, 2)).astype(np.float32)
            # Distinct scores: the framework leaves the order of equal ones open.
            scores = (rng.permutation(count) / max(count, 1)).astype(np.float32)
            detections = np.concatenate([centers, scores[:, None]], axis=1)
            expected = [int(index) for index in theirs(detections, radius, post_max_size=83)]
            assert circle_nms(centers, scores, radius, 83).tolist() == expected
