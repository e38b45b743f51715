"""An FRNet small enough for tests: its training config, frames, and specs for stand-in sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from demo.labels import SEGMENTS
from shared.spec import AxisSizes, ComponentSpec, ModelSpec, TensorSpec

CLASSES = list(SEGMENTS[:-1])
HEIGHT, WIDTH, COLUMNS = 16, 32, 128
STRIDES = (1, 2, 4, 8)
SENSOR = {"position": [0.875, 0.0, 1.9375], "fov_up": 13.0, "fov_down": -26.0}

#: As AWML writes them; norms are of GPUs together, and auxiliary heads are of the training.
TRAINING_CONFIG = f"""
custom_imports = dict(imports=["projects.FRNet.frnet.models", "projects.FRNet.frnet.datasets"],
                      allow_failed_imports=False)
norm = dict(type="SyncBN", eps=1e-3, momentum=0.01)
ignored = {len(CLASSES)}
seen = dict(fov_up=13.0, fov_down=-26.0, ignore_index=ignored)
model = dict(
    type="FRNet",
    data_preprocessor=dict(type="FrustumRangePreprocessor", H={HEIGHT}, W={WIDTH}, **seen),
    voxel_encoder=dict(type="FrustumFeatureEncoder", in_channels=4, feat_channels=(8, 8, 16, 16), with_distance=True,
                       with_cluster_center=True, norm_cfg=norm, with_pre_norm=True, feat_compression=8),
    backbone=dict(type="FRNetBackbone", in_channels=8, point_in_channels=24, output_shape=({HEIGHT}, {WIDTH}), depth=18,
                  stem_channels=8, out_channels=(8, 8, 8, 8), fuse_channels=(8, 16), norm_cfg=norm, point_norm_cfg=norm,
                  act_cfg=dict(type="HSwish", inplace=True)),
    decode_head=dict(type="FRHead", in_channels=16, middle_channels=(16, 16, 8, 8), channels=8, norm_cfg=norm,
                     num_classes=ignored + 1, ignore_index=ignored, dropout_ratio=0, conv_seg_kernel_size=1,
                     loss_ce=dict(type="mmdet.CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0)),
    auxiliary_head=[dict(type="FrustumHead", channels=8, num_classes=ignored + 1, loss_lovasz=dict(type="LovaszLoss"))],
)
test_pipeline = [
    dict(type="LoadPointsWithIdentifierFromFile", coord_type="LIDAR", load_dim=5, use_dim=4),
    dict(type="LoadSegAnnotationsWithIdentifier3D", with_seg_3d=True),
    dict(type="PointSegClassMapping"),
    dict(type="RangeInterpolation", H={HEIGHT}, W={COLUMNS}, **seen),
    dict(type="Pack3DDetInputs", keys=["points"], meta_keys=["num_points"]),
]
test_dataloader = dict(
    dataset=dict(type="T4SegDataset", metainfo=dict(classes={CLASSES!r}), pipeline=test_pipeline))
"""


def write_config(folder: Path, text: str = TRAINING_CONFIG) -> Path:
    """The training config as a file."""
    path = folder / "tiny_frnet.py"
    path.write_text(text)
    return path


def built(config: Path, **options: Any) -> tuple[Any, Any, Any]:
    """Model with random weights, its training config, and its checked options."""
    from exporter.models.frnet import adapter
    from exporter.training_config import random_weights, read_training_config

    training = read_training_config(config)
    checked = adapter.read_options({"sensor_position": SENSOR["position"], **options})
    model = adapter.build(training, checked)
    random_weights(model, seed=0)
    return model, training, checked


def points(count: int = 3000, seed: int = 0) -> npt.NDArray[np.float32]:
    """(count, 4) points about a sensor at ``SENSOR``, on the demo's grid, some of them in the same place."""
    rng = np.random.default_rng(seed)
    azimuth, pitch = rng.uniform(-np.pi, np.pi, count), np.radians(rng.uniform(-27, 15, count))
    distance = rng.uniform(1.5, 80, count)
    flat = np.cos(pitch) * distance
    xyz = np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(pitch) * distance], axis=1)
    cloud = np.concatenate([xyz + SENSOR["position"], rng.uniform(0, 255, (count, 1))], axis=1)
    cloud[count // 2 : count // 2 + count // 20] = cloud[: count // 20]
    return (np.round(cloud * 512) / 512).astype(np.float32)


def spec(form: str = "padded", **changes: Any) -> ModelSpec:
    """A model that a stand-in session answers for."""
    inputs = {
        "points": ("float32", ["num_points", 4]),
        "coors": ("int32", ["num_points", 2]),
        "inverse_map": ("int32", ["num_points"]),
        "frustum_points": ("int32", ["num_frustums", 8]),
        "pixel_frustums": ("int32", [sum(HEIGHT * WIDTH // stride**2 for stride in STRIDES)]),
    }
    if form == "scatter":
        inputs = {
            "points": ("float32", ["num_points", 4]),
            "coors": ("int64", ["num_points", 3]),
            "voxel_coors": ("int64", ["num_unique_coors", 3]),
            "inverse_map": ("int64", ["num_points"]),
        }
    component = ComponentSpec(
        name="frnet",
        inputs=[TensorSpec(name=name, dtype=dtype, shape=shape) for name, (dtype, shape) in inputs.items()],
        outputs=[TensorSpec(name="pred_probs", dtype="float32", shape=["num_points", len(CLASSES) + 1])],
        onnx="onnx/frnet.onnx",
        axes={name: AxisSizes(min=2, opt=60000, max=120000) for name in ("num_points", "num_unique_coors")},
    )
    parameters = {
        "points": {"load_dim": 5, "use_dim": [0, 1, 2, 3], "merge_sweeps": False, "sweeps_num": 0},
        "sensor": SENSOR,
        "interpolation": {"height": HEIGHT, "width": COLUMNS},
        "frustums": {"height": HEIGHT, "width": WIDTH},
        "form": form,
        "strides": list(STRIDES),
        "points_per_frustum": 8,
        "ignored_class": len(CLASSES),
        **changes,
    }
    return ModelSpec(
        model="frnet", task="segmentation3d", classes=CLASSES, components=[component], parameters=parameters
    )
