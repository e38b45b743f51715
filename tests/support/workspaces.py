"""Workspaces with made-up runs: what exporter and runtime leave behind, without a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from shared.config import DeployConfig, resolved
from shared.data import open_dataset
from shared.runs import RunHeader, RunWriter
from shared.spec import ComponentSpec, ModelSpec, TensorSpec
from shared.tasks.detection3d import Boxes3D
from shared.workspace import Workspace

CLASSES = ["car", "pedestrian"]
SAMPLES = 6
RAW_SAMPLES = (0, 1)
SCORE_THRESHOLD = 0.1


def make_labels(root: Path, samples: int = SAMPLES, seed: int = 5) -> None:
    """An info file ``infos.json`` under ``root`` of ``samples`` labeled frames; no points: nobody here reads any."""
    rng = np.random.default_rng(seed)
    frames = []
    for index in range(samples):
        instances = []
        for _ in range(12):
            label = int(rng.integers(2))
            size = [4.4, 1.8, 1.6] if label == 0 else [0.7, 0.6, 1.7]
            position = [*rng.uniform(-100, 100, 2), 0.9]
            instances.append(
                {
                    "bbox_3d": [float(v) for v in (*position, *size, rng.uniform(-np.pi, np.pi))],
                    "bbox_label_3d": label,
                    "bbox_3d_isvalid": True,
                    "num_lidar_pts": int(rng.integers(1, 300)),
                    "velocity": [float(v) for v in rng.normal(0, 3, 2)],
                }
            )
        frames.append(
            {
                "sample_idx": index,
                "token": f"token{index}",
                "timestamp": 1.7e9 + index,
                "ego2global": np.eye(4).tolist(),
                "lidar_points": {
                    "num_pts_feats": 5,
                    "lidar_path": f"{index}.bin",
                    "lidar2ego": np.eye(4).tolist(),
                },
                "instances": instances,
            }
        )
    root.mkdir(parents=True, exist_ok=True)
    (root / "infos.json").write_text(json.dumps({"metainfo": {"classes": CLASSES}, "data_list": frames}))


def make_workspace(folder: Path, samples: int = SAMPLES, **sections: Any) -> Workspace:
    """A workspace after an export: spec and config, labels under ``folder/data``; no runs.

    Args:
        folder: where to make it.
        samples: labeled frames.
        sections: sections of the deploy config that differ.
    """
    data = folder / "data"
    make_labels(data, samples)
    settings: dict[str, Any] = {
        "model": {"type": "centerpoint", "config": "model.py", "checkpoint": "weights.pth"},
        "data": {"format": "info", "root": str(data), "info_file": "infos.json"},
        "export": {"mode": "onnx"},
        "verification": {"num_verify_samples": len(RAW_SAMPLES)},
        "evaluation": {"enabled": True, "num_samples": -1},
    }
    config = DeployConfig.model_validate(settings | sections)
    tensor = TensorSpec(name="spatial_features", dtype="float32", shape=[1, 8, 16, 16])
    output = TensorSpec(name="heatmap", dtype="float32", shape=[1, 2, 16, 16])
    spec = ModelSpec(
        model="centerpoint",
        task="detection3d",
        classes=CLASSES,
        components=[ComponentSpec(name="head", inputs=[tensor], outputs=[output], onnx="onnx/head.onnx")],
        parameters={"bbox_coder": {"score_threshold": SCORE_THRESHOLD}},
    )
    workspace = Workspace.create(folder / "work")
    with workspace.stage("export", tool="shared") as stage:
        stage.spec(spec)
        stage.config(resolved(config))
    return workspace


def good_boxes(workspace: Workspace, index: int) -> Boxes3D:
    """Predictions that are nearly the labels of a sample, plus some clutter."""
    dataset = open_dataset(DeployConfig.model_validate(workspace.config()).data)
    truth = dataset.sample(index).ground_truth
    assert truth is not None
    rng = np.random.default_rng(index)
    hits = replace(
        truth,
        centers=(truth.centers + rng.normal(0, 0.1, truth.centers.shape)).astype(np.float32),
        scores=rng.uniform(0.5, 0.95, len(truth)).astype(np.float32),
    )
    clutter = Boxes3D.build(
        rng.uniform(-100, 100, (4, 3)),
        np.full((4, 3), 1.5),
        rng.uniform(-3, 3, 4),
        np.zeros((4, 2)),
        labels=[0, 1, 0, 1],
        scores=rng.uniform(0.12, 0.4, 4),
    )
    return join(hits, clutter)


def join(first: Boxes3D, second: Boxes3D) -> Boxes3D:
    """The boxes of both."""
    names = ("centers", "sizes", "yaws", "velocities", "labels", "scores", "num_points")
    return Boxes3D(**{name: np.concatenate([getattr(first, name), getattr(second, name)]) for name in names})


def raw_outputs(index: int) -> dict[str, np.ndarray]:
    """Head outputs of a sample, the same whenever asked."""
    rng = np.random.default_rng(100 + index)
    shapes = {"heatmap": (1, 2, 16, 16), "reg": (1, 2, 16, 16)}
    return {name: rng.normal(0, 2, shape).astype(np.float32) for name, shape in shapes.items()}


def add_run(
    workspace: Workspace,
    backend: str,
    device: str = "cpu",
    *,
    samples: int = SAMPLES,
    boxes: Mapping[int, Boxes3D] | None = None,
    raw: Mapping[int, Mapping[str, np.ndarray]] | None = None,
    noise: float = 0.0,
    finish: bool = True,
    inputs: Mapping[str, str] | None = None,
    **header: Any,
) -> None:
    """Record a finished run.

    Args:
        workspace: the workspace.
        backend: ``framework`` makes the reference folder.
        device: the device.
        samples: how many of the data set's samples.
        boxes: boxes of samples that differ from `good_boxes`.
        raw: raw outputs of samples that differ from `raw_outputs`.
        noise: standard deviation of what is added to raw outputs.
        finish: False leaves the run half done.
        inputs: hashes of what the run was made from.
        header: fields of the header that differ.
    """
    dataset = open_dataset(DeployConfig.model_validate(workspace.config()).data)
    name = f"{backend}-{device.replace(':', '')}"
    folder = "reference" if backend == "framework" else f"runs/{name}"
    raw_samples = [index for index in RAW_SAMPLES if index < samples]
    fields: dict[str, Any] = {
        "backend": backend,
        "device": device,
        "model": "centerpoint",
        "task": "detection3d",
        "classes": CLASSES,
        "dataset": dataset.digest(),
        "tokens": [dataset.sample(index).token for index in range(samples)],
        "raw_samples": raw_samples,
        "fingerprint": "test",
    }
    rng = np.random.default_rng(list(f"{backend}{device}".encode()))
    stage_name = "reference" if backend == "framework" else f"run:{name}"
    stage = workspace.stage(stage_name, tool="shared", config=fields, inputs=dict(inputs or {}))
    with stage:
        writer = RunWriter.open(stage.folder(folder), RunHeader.model_validate(fields | header), resume=False)
        for index in range(samples if finish else samples - 1):
            outputs = dict((raw or {}).get(index, raw_outputs(index)))
            if noise:
                outputs = {
                    key: (value + rng.normal(0, noise, value.shape)).astype(value.dtype)
                    for key, value in outputs.items()
                }
            writer.commit(
                index,
                boxes[index] if boxes and index in boxes else good_boxes(workspace, index),
                {"total": 10.0 + index, "preprocess": 4.0, "model": 5.0 + index},
                {"voxels": 100},
                outputs if index in raw_samples else None,
            )
        for relative in writer.finish():
            stage.add_artifact(f"{folder}/{relative}", "run")
