"""End to end: a small CenterPoint exported, run by both backends, and compared with mmdetection3d's own answers.

Every box of the framework is matched by one of ours, and the other way round, within 1e-2 m and 1e-3 in score, on 50
synthetic frames (15 of each variant) and on every real one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.runs import Run
from shared.tasks.detection3d import Boxes3D
from tests.support.lidar_frames import real_frames, synthetic_frame

pytestmark = [pytest.mark.exporter, pytest.mark.e2e]

SYNTHETIC = 50
CENTER_TOLERANCE = 1e-2
SCORE_TOLERANCE = 1e-3

TRAINING_CONFIG = """
point_cloud_range = [-51.2, -51.2, -5.0, 51.2, 51.2, 5.0]
voxel_size = [0.4, 0.4, 10.0]
names = {names}
model = dict(
    type="CenterPoint",
    data_preprocessor=dict(type="Det3DDataPreprocessor", voxel=True, voxel_layer=dict(
        max_num_points=20, voxel_size=voxel_size, max_voxels=(9000, 9000), point_cloud_range=point_cloud_range,
        deterministic=True)),
    pts_voxel_encoder=dict(
        type="PillarFeatureNet", in_channels={features}, feat_channels=[16], voxel_size=voxel_size,
        point_cloud_range=point_cloud_range, norm_cfg=dict(type="BN1d", eps=1e-3, momentum=0.01), legacy=False),
    pts_middle_encoder=dict(type="PointPillarsScatter", in_channels=16, output_shape=(256, 256)),
    pts_backbone=dict(
        type="SECOND", in_channels=16, out_channels=[16, 32], layer_nums=[1, 1], layer_strides=[2, 2],
        norm_cfg=dict(type="BN", eps=1e-3, momentum=0.01), conv_cfg=dict(type="Conv2d", bias=False)),
    pts_neck=dict(
        type="SECONDFPN", in_channels=[16, 32], out_channels=[16, 16], upsample_strides=[1, 2],
        norm_cfg=dict(type="BN", eps=1e-3, momentum=0.01), upsample_cfg=dict(type="deconv", bias=False),
        use_conv_for_no_stride=True),
    pts_bbox_head=dict(
        type="CenterHead", in_channels=32, share_conv_channel=16,
        tasks=[dict(num_class=len(task), class_names=task) for task in names],
        common_heads=dict(reg=(2, 2), height=(1, 2), dim=(3, 2), rot=(2, 2), vel=(2, 2)),
        bbox_coder=dict(
            type="CenterPointBBoxCoder", pc_range=point_cloud_range[:2], out_size_factor=2, voxel_size=voxel_size[:2],
            post_center_range=[-61.2, -61.2, -10.0, 61.2, 61.2, 10.0], max_num=500, score_threshold=0.1, code_size=9),
        separate_head=dict(type="SeparateHead", init_bias=-4.595, final_kernel=1),
        loss_cls=dict(type="mmdet.GaussianFocalLoss", reduction="mean"),
        loss_bbox=dict(type="mmdet.L1Loss", reduction="mean", loss_weight=0.25), norm_bbox=True),
    test_cfg=dict(pts=dict(
        grid_size=[256, 256, 1], out_size_factor=2, pc_range=point_cloud_range[:2], voxel_size=voxel_size[:2],
        post_center_limit_range=[-61.2, -61.2, -10.0, 61.2, 61.2, 10.0], nms_type="circle",
        min_radius={radius}, post_max_size=100)),
)
test_pipeline = [
    dict(type="LoadPointsFromFile", coord_type="LIDAR", load_dim=5, use_dim=5),
    dict(type="LoadPointsFromMultiSweeps", sweeps_num=1, use_dim={use_dim}, pad_empty_sweeps=False, remove_close=True,
         test_mode=True),
    dict(type="PointsRangeFilter", point_cloud_range=point_cloud_range),
    dict(type="Pack3DDetInputs", keys=["points"]),
]
test_dataloader = dict(dataset=dict(type="T4Dataset", data_root=".", ann_file="none.pkl", pipeline=test_pipeline))
"""

ONE_TASK = {
    "names": '[["car", "truck", "bus", "bicycle", "pedestrian"]]',
    "radius": "[1.0]",
    "features": "4",
    "use_dim": "[0, 1, 2, 4]",
}
THREE_TASKS = {
    "names": '[["car"], ["truck", "bus"], ["bicycle", "pedestrian"]]',
    "radius": "[4.0, 12.0, 0.175]",
    "features": "5",
    "use_dim": "[0, 1, 2, 3, 4]",
}


def write_checkpoint(training_config: Path, path: Path) -> None:
    """Random weights whose heatmaps have few peaks, as a trained network's have.

    Logits stay below 12: where the sigmoid saturates, scores tie, and the framework leaves the order of ties open.
    """
    import torch

    from exporter.models.centerpoint import adapter as centerpoint
    from exporter.training_config import random_weights, read_training_config

    model = centerpoint.build(read_training_config(training_config), centerpoint.read_options({}))
    random_weights(model, seed=7)
    state = model.state_dict()
    for name, value in state.items():
        if ".heatmap." in name and name.endswith(".1.bias"):
            value.fill_(-5.0)
        if ".heatmap." in name and name.endswith(".1.weight"):
            value.mul_(2.0)
        if ".dim." in name and name.endswith(".1.weight"):
            value.mul_(1.2)
    torch.save({"state_dict": state}, path)


def export_and_run(root: Path, frames: dict[str, np.ndarray], variant: dict[str, str], options: str = "{}") -> Path:
    """A workspace with the framework's answers and both backends' runs on all frames."""
    import yaml

    from exporter.export import export
    from runtime.run import run

    folder = root / "frames"
    folder.mkdir()
    for number, (name, points) in enumerate(frames.items()):
        points.tofile(folder / f"{number:03d}_{name}.bin")
    config = root / "training.py"
    text = TRAINING_CONFIG
    for key, value in variant.items():
        text = text.replace("{" + key + "}", value)
    config.write_text(text)
    write_checkpoint(config, root / "weights.pth")
    deploy: dict[str, Any] = {
        "model": {
            "type": "centerpoint",
            "config": str(config),
            "checkpoint": str(root / "weights.pth"),
            "options": yaml.safe_load(options),
        },
        "data": {"format": "folder", "root": str(folder), "num_features": 5},
        "verification": {"num_verify_samples": len(frames)},
        "evaluation": {"num_samples": -1},
    }
    (root / "deploy.yaml").write_text(yaml.safe_dump(deploy))
    export(root / "deploy.yaml", root / "work", [])
    for backend in ("onnx", "pytorch"):
        run(root / "work", backend, "cpu")
    return root / "work"


def unmatched(boxes: Boxes3D, others: Boxes3D) -> list[int]:
    """Boxes without a counterpart of the same label within the tolerances; a counterpart serves once."""
    free = np.ones(len(others), bool)
    alone = []
    for index in range(len(boxes)):
        distance = np.linalg.norm(others.centers - boxes.centers[index], axis=1)
        close = (
            free
            & (distance <= CENTER_TOLERANCE)
            & (np.abs(others.scores - boxes.scores[index]) <= SCORE_TOLERANCE)
            & (others.labels == boxes.labels[index])
        )
        if close.any():
            free[np.where(close, distance, np.inf).argmin()] = False
        else:
            alone.append(index)
    return alone


def assert_runs_match(work: Path) -> None:
    reference = Run.open(work / "reference")
    boxes = 0
    for backend in ("onnx", "pytorch"):
        answer = Run.open(work / "runs" / f"{backend}-cpu")
        assert answer.header.tokens == reference.header.tokens
        for index, token in enumerate(reference.header.tokens):
            ours, theirs = answer.boxes(index), reference.boxes(index)
            assert unmatched(theirs, ours) == [], f"{backend}, {token}: the framework's"
            assert unmatched(ours, theirs) == [], f"{backend}, {token}: ours"
            boxes += len(theirs)
            expected = reference.raw(index)
            assert set(answer.raw(index)) == set(expected)
            for name, value in answer.raw(index).items():
                np.testing.assert_allclose(value, expected[name], rtol=0, atol=5e-3, err_msg=f"{token}, {name}")
                if name.startswith("heatmap"):
                    assert expected[name].max() < 12
    assert boxes > 10 * len(reference), "too few boxes to prove anything"


@pytest.mark.parametrize(
    ("variant", "options", "count"),
    [(ONE_TASK, "{}", SYNTHETIC), (ONE_TASK, "{rot_y_axis_reference: true}", 15), (THREE_TASKS, "{}", 15)],
    ids=["one-task", "y-axis", "three-tasks"],
)
def test_synthetic_frames(tmp_path, variant, options, count):
    """What the variants share is seen in many frames of one."""
    frames = {f"synthetic{seed}": synthetic_frame(seed) for seed in range(count)}
    assert_runs_match(export_and_run(tmp_path, frames, variant, options))


def test_every_real_frame(tmp_path, real_data):
    frames = {token.replace("/", "_"): points for token, points in real_frames(real_data)}
    assert_runs_match(export_and_run(tmp_path, frames, ONE_TASK))
