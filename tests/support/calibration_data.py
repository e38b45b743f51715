"""Camera-lidar pairs for tests: a generated scene on disk, and pairs made of arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from demo.recording import record_scene
from demo.t4_writer import write_dataset
from shared.config import DeployConfig, resolved
from shared.spec import ComponentSpec, ModelSpec, TensorSpec
from shared.workspace import Workspace

DEMO_INFO = "info/t4dataset_demo_calibration_infos_eval.pkl"
PARAMETERS = {
    "max_depth": 128.0,
    "dilation_size": 1,
    "undistort": True,
    "miscalibration_confidence_threshold": 0.0,
}
CLASSES = ["miscalibrated", "calibrated"]


def make_demo(folder: Path, frames: int = 1) -> Path:
    """A demo data set of one scene with ``frames`` key frames of six cameras."""
    recordings = [record_scene(7, "eval", 0, frames, cameras=True)]
    write_dataset(folder, "eval", recordings, {"test": frames})
    return folder


def entry(index: int = 0, **image: Any) -> dict[str, Any]:
    """An entry of AWML's calibration info: camera and lidar at the origin, looking along the lidar's x axis."""
    cam2ego = np.array([[0, 0, 1, 0.5], [-1, 0, 0, 0.1], [0, -1, 0, 1.2], [0, 0, 0, 1]], float)
    own = {
        "img_path": "image.png",
        "cam2img": [[80.0, 0.0, 60.0], [0.0, 82.0, 40.0], [0.0, 0.0, 1.0]],
        "cam2ego": cam2ego.tolist(),
        "cam_pose": np.eye(4).tolist(),
        "lidar2cam": np.linalg.inv(cam2ego).tolist(),
        "distortion_coefficients": [0.0, 0.0, 0.0, 0.0, 0.0],
        "height": 80,
        "width": 120,
        "timestamp": 1_700_000_000_050_000,
    } | image
    return {
        "frame_idx": str(index),
        "frame_id": "CAM_FRONT",
        "sample_idx": index,
        "scene_id": "scene",
        "image": {name: value for name, value in own.items() if value is not ...},
        "lidar_points": {
            "lidar_path": "points.bin",
            "lidar_pose": np.eye(4).tolist(),
            "lidar2ego": np.eye(4).tolist(),
            "timestamp": 1_700_000_000_000_000,
        },
        "lidar_sources": {},
    }


def write_pair(folder: Path, entries: list[dict[str, Any]], shape: tuple[int, ...] = (80, 120, 3)) -> Path:
    """``infos.json`` with the entries, ``image.png`` and ``points.bin``."""
    import cv2

    rng = np.random.default_rng(3)
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "image.png"), rng.integers(0, 256, shape, dtype=np.uint8))
    points = np.column_stack(
        [rng.uniform(2, 60, 4000), rng.uniform(-20, 20, 4000), rng.uniform(-2, 6, 4000), rng.uniform(0, 255, 4000)]
    )
    np.concatenate([points, np.zeros((4000, 1))], axis=1).astype(np.float32).tofile(folder / "points.bin")
    (folder / "infos.json").write_text(json.dumps({"metainfo": {"version": "test"}, "data_list": entries}))
    return folder


def spec(**parameters: Any) -> ModelSpec:
    """The model spec of a calibration status model."""
    return ModelSpec(
        model="calibration",
        task="classification",
        classes=CLASSES,
        components=[
            ComponentSpec(
                name="end2end",
                inputs=[TensorSpec(name="input", dtype="float32", shape=["batch_size", 5, "height", "width"])],
                outputs=[TensorSpec(name="output", dtype="float32", shape=["batch_size", 2])],
                onnx="onnx/end2end.onnx",
            )
        ],
        parameters=PARAMETERS | parameters,
    )


def workspace_of(folder: Path, data: Path, **sections: Any) -> Workspace:
    """A workspace after an export, on ``infos.json`` of ``data``, without model files."""
    settings: dict[str, Any] = {
        "task_type": "classification",
        "model": {"type": "calibration", "config": "model.py", "checkpoint": "weights.pth"},
        "data": {"format": "info", "root": str(data), "info_file": "infos.json"},
        "export": {"mode": "onnx"},
        "evaluation": {"enabled": True, "num_samples": -1},
    }
    workspace = Workspace.create(folder)
    with workspace.stage("export", tool="shared") as stage:
        stage.spec(spec())
        stage.config(resolved(DeployConfig.model_validate(settings | sections)))
    return workspace


class FakeSession:
    """A network that answers with the same logits and keeps what it was given."""

    def __init__(self, logits: tuple[float, float] = (-1.0, 2.0)) -> None:
        self.settings: dict[str, Any] = {}
        self.logits = logits
        self.given: list[np.ndarray] = []

    def run(self, component: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One request."""
        assert component == "end2end"
        self.given.append(inputs["input"].copy())
        return {"output": np.array([self.logits], np.float32)}
