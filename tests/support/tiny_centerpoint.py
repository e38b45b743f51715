"""A CenterPoint so small that a test can export and run it: a workspace as the exporter leaves it, without mmdet3d.

Random weights; the parts have the names, axes and outputs of the real ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from runtime.lidar.grid import VoxelGrid
from runtime.lidar.voxelize import Voxels
from runtime.models.centerpoint.parameters import Decoration
from shared.arrays import Float32
from shared.config import DeployConfig, resolved
from shared.runs import Run
from shared.spec import ComponentSpec, ModelSpec, TensorSpec
from shared.workspace import Workspace

CLASSES = ["car", "pedestrian", "bicycle"]
CHANNELS = 8
HEADS = {"reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2}

ENCODER = ("pts_voxel_encoder", "input_features", ["pillar_features"])


def parameters(*, max_voxels: int = 400, two_tasks: bool = False, y_axis: bool = False) -> dict[str, Any]:
    """Parameters of a 32 x 32 grid of 1 m pillars."""
    tasks = [CLASSES[:2], CLASSES[2:]] if two_tasks else [CLASSES]
    suffixes = ["_0", "_1"] if two_tasks else [""]
    return {
        "point_cloud_range": [-16.0, -16.0, -3.0, 16.0, 16.0, 5.0],
        "voxel_size": [1.0, 1.0, 8.0],
        "grid_size": [32, 32, 1],
        "max_points_per_voxel": 8,
        "max_voxels": max_voxels,
        "points": {
            "load_dim": 5,
            "use_dim": [0, 1, 2, 4],
            "sweeps_num": 1,
            "remove_close": True,
            "pad_empty_sweeps": False,
            "range_filter": [-16.0, -16.0, -3.0, 16.0, 16.0, 5.0],
        },
        "decoration": {
            "raw_features": 4,
            "cluster_center": True,
            "voxel_center": "xyz",
            "distance": False,
            "legacy": False,
        },
        "encoder_channels": CHANNELS,
        "out_size_factor": 2,
        "norm_bbox": True,
        "rot_y_axis_reference": y_axis,
        "bbox_coder": {"max_num": 50, "score_threshold": 0.1, "post_center_range": [-20, -20, -10, 20, 20, 10]},
        "nms": {"type": "circle", "radius": [1.0, 2.0][: len(tasks)], "pre_max_size": None, "post_max_size": 20},
        "tasks": [
            {"classes": classes, "outputs": {role: f"{role}{suffix}" for role in ("heatmap", *HEADS)}}
            for classes, suffix in zip(tasks, suffixes, strict=True)
        ],
    }


def dense_tensor(voxels: Voxels, max_points: int) -> Float32:
    """The tensor (V, max_points, C) that mmdetection3d makes of voxels, unused slots zero."""
    tensor = np.zeros((len(voxels) * max_points, voxels.points.shape[1]), np.float32)
    tensor[voxels.rows] = voxels.points
    return tensor.reshape(len(voxels), max_points, voxels.points.shape[1])


def grid_of(
    minimum: tuple[float, float, float],
    voxel_size: tuple[float, float, float],
    shape: tuple[int, int, int],
    max_points: int,
    max_voxels: int,
) -> VoxelGrid:
    """The grid of so many voxels (x, y, z) from a corner [m] on."""
    upper = tuple(low + size * count for low, size, count in zip(minimum, voxel_size, shape, strict=True))
    return VoxelGrid.model_validate(
        {
            "point_cloud_range": (*minimum, *upper),
            "voxel_size": voxel_size,
            "grid_size": shape,
            "max_points_per_voxel": max_points,
            "max_voxels": max_voxels,
        }
    )


def decoration_of(raw_features: int, cluster: bool, axes: int, distance: bool, legacy: bool) -> Decoration:
    """The decoration with the pillar's center along so many axes."""
    names: dict[int, Any] = {3: "xyz", 2: "xy", 0: "none"}
    return Decoration(
        raw_features=raw_features,
        cluster_center=cluster,
        voxel_center=names[axes],
        distance=distance,
        legacy=legacy,
    )


def spec(**options: Any) -> ModelSpec:
    """The model spec."""
    values = parameters(**options)
    outputs = [
        TensorSpec(
            name=task["outputs"][role],
            dtype="float32",
            shape=["batch_size", len(task["classes"]) if role == "heatmap" else HEADS[role], "height", "width"],
        )
        for task in values["tasks"]
        for role in ("heatmap", *HEADS)
    ]
    encoder = ComponentSpec(
        name="pts_voxel_encoder",
        inputs=[TensorSpec(name="input_features", dtype="float32", shape=["num_voxels", "num_max_points", 10])],
        outputs=[TensorSpec(name="pillar_features", dtype="float32", shape=["num_voxels", 1, CHANNELS])],
        onnx="onnx/pts_voxel_encoder.onnx",
        program="pytorch/pts_voxel_encoder.pt2",
    )
    head = ComponentSpec(
        name="pts_backbone_neck_head",
        inputs=[
            TensorSpec(name="spatial_features", dtype="float32", shape=["batch_size", CHANNELS, "height", "width"])
        ],
        outputs=outputs,
        onnx="onnx/pts_backbone_neck_head.onnx",
        program="pytorch/pts_backbone_neck_head.pt2",
    )
    return ModelSpec(
        model="centerpoint", task="detection3d", classes=CLASSES, components=[encoder, head], parameters=values
    )


def write_frames(folder: Path, counts: list[int]) -> Path:
    """A folder of point files (x, y, z, intensity, ring as float32), one per count."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, count in enumerate(counts):
        rng = np.random.default_rng(number)
        points = rng.normal(0, 5, (count, 5)).astype(np.float32)
        points[:, 2] = rng.uniform(-2.5, 4.5, count)
        points.tofile(folder / f"{number:03d}.bin")
    return folder


def make_workspace(root: Path, frames: Path, **options: Any) -> Workspace:
    """A workspace with the model's ONNX files and programs, its spec and its config."""
    import torch

    model = spec(**options)
    torch.manual_seed(0)
    modules = {"pts_voxel_encoder": _encoder(), "pts_backbone_neck_head": _head(model)}
    examples = {
        "pts_voxel_encoder": (torch.randn(7, 8, 10),),
        "pts_backbone_neck_head": (torch.randn(1, CHANNELS, 32, 32),),
    }
    workspace = Workspace.create(root)
    config = DeployConfig.model_validate(
        {
            "model": {"type": "centerpoint", "config": "model.py", "checkpoint": "model.pth"},
            "data": {"format": "folder", "root": str(frames), "num_features": 5},
            "verification": {"num_verify_samples": 2},
            "evaluation": {"num_samples": -1},
        }
    )
    with workspace.stage("export", tool="exporter") as stage:
        for component in model.components:
            module, example = modules[component.name].eval(), examples[component.name]
            axes = {
                tensor.name: {axis: size for axis, size in enumerate(tensor.shape) if isinstance(size, str)}
                for tensor in (*component.inputs, *component.outputs)
            }
            with stage.artifact(component.onnx, kind="onnx") as path:
                torch.onnx.export(
                    module,
                    example,
                    str(path),
                    input_names=[tensor.name for tensor in component.inputs],
                    output_names=component.output_names(),
                    dynamic_axes=axes,
                    opset_version=17,
                    dynamo=False,
                )
            dynamic = tuple(dict.fromkeys(axes[component.inputs[0].name], torch.export.Dim.AUTO) for _ in example)
            program = torch.export.export(module, example, dynamic_shapes=dynamic)
            assert component.program is not None
            with stage.artifact(component.program, kind="program") as path:
                torch.export.save(program, path)
        stage.spec(model)
        stage.config(resolved(config))
    return workspace


def assert_same_boxes(ours: Run, theirs: Run) -> None:
    """Counters, boxes and raw outputs of two runs are the same, but for rounding; there are boxes to compare."""
    assert ours.counters == theirs.counters
    assert sum(counters["boxes"] for counters in theirs.counters) > 10
    for index in range(len(theirs)):
        got, wanted = ours.boxes(index), theirs.boxes(index)
        np.testing.assert_array_equal(got.labels, wanted.labels)
        for name in ("centers", "sizes", "yaws", "velocities", "scores"):
            np.testing.assert_allclose(getattr(got, name), getattr(wanted, name), rtol=1e-4, atol=1e-5, err_msg=name)
    for index in theirs.header.raw_samples:
        for name, value in theirs.raw(index).items():
            np.testing.assert_allclose(ours.raw(index)[name], value, rtol=1e-4, atol=1e-5)


def _encoder() -> Any:
    import torch

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(10, CHANNELS)

        def forward(self, features: Any) -> Any:
            return torch.relu(self.linear(features)).amax(dim=1, keepdim=True)

    return Encoder()


def _head(model: ModelSpec) -> Any:
    import torch

    class Head(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = torch.nn.Conv2d(CHANNELS, 16, 3, stride=2, padding=1)
            self.heads = torch.nn.ModuleList(
                torch.nn.Conv2d(16, int(tensor.shape[1]), 1) for tensor in model.components[1].outputs
            )

        def forward(self, features: Any) -> Any:
            trunk = torch.relu(self.trunk(features))
            return tuple(head(trunk) for head in self.heads)

    return Head()
