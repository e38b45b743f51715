"""Workspaces that are ready for a report: evaluated runs of every task, with the files that pictures are drawn from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from demo.labels import SEGMENTS
from demo.recording import record_scene
from demo.t4_writer import write_dataset
from evaluator.evaluate import evaluate
from shared.arrays import UInt8
from shared.config import DeployConfig, resolved
from shared.data import open_dataset
from shared.data.labels import labels_in
from shared.metrics.confusion import UNLABELED
from shared.runs import RunHeader, RunWriter
from shared.spec import ComponentSpec, ModelSpec, TensorSpec
from shared.tasks import Predictions, find
from shared.tasks.classification import ClassScores
from shared.tasks.detection2d import Boxes2D
from shared.workspace import Workspace
from tests.support.calibration_data import entry, workspace_of, write_pair
from tests.support.workspaces import SAMPLES, add_run, make_workspace
from verifier.verify import verify

BACKENDS = ("pytorch", "onnx")


def detection3d(folder: Path, *, points: bool = True, gates: tuple[str, ...] = (), **run: Any) -> Workspace:
    """Verified and evaluated runs of boxes.

    Args:
        folder: where to make it.
        points: whether the point files are there.
        gates: conditions under which it fails.
        run: how the ONNX run differs, see `add_run`.
    """
    workspace = make_workspace(folder)
    if points:
        write_points(folder / "data")
    add_run(workspace, "framework", samples=2)
    add_run(workspace, "pytorch")
    add_run(workspace, "onnx", **run)
    verify(workspace.root, (), force=False)
    evaluate(workspace.root, None, False, gates)
    return workspace


def write_points(data: Path) -> None:
    """Random points of every sample."""
    rng = np.random.default_rng(1)
    for index in range(SAMPLES):
        points = np.concatenate([rng.normal(0, 30, (3000, 2)), rng.normal(0, 1, (3000, 3))], axis=1)
        points[:3, 0] = np.nan
        points.astype(np.float32).tofile(data / f"{index}.bin")


def detection2d(folder: Path, *, images: bool = True) -> Workspace:
    """Evaluated runs of boxes in images, of four images with a COCO file."""
    data = folder / "data"
    data.mkdir(parents=True)
    rng = np.random.default_rng(2)
    annotations = []
    for image in range(4):
        if images:
            pixels = rng.integers(0, 255, (240, 1600, 3), dtype=np.uint8)
            cv2.imwrite(str(data / f"{image}.jpg"), cv2.blur(pixels, (9, 9)))
        for _ in range(3):
            left, top = rng.uniform(0, 1200), rng.uniform(0, 120)
            category = int(rng.integers(2))
            annotations.append(
                {"id": len(annotations), "image_id": image, "category_id": category, "bbox": [left, top, 90.0, 80.0]}
            )
    content = {
        "images": [{"id": image, "file_name": f"{image}.jpg", "width": 1600, "height": 240} for image in range(4)],
        "categories": [{"id": 0, "name": "car"}, {"id": 1, "name": "bus"}],
        "annotations": annotations,
    }
    (data / "labels.json").write_text(json.dumps(content))
    config = DeployConfig.model_validate(
        {
            "task_type": "detection2d",
            "model": {"type": "yolox", "config": "model.py", "checkpoint": "weights.pth"},
            "data": {"format": "coco", "root": str(data), "info_file": "labels.json"},
            "export": {"mode": "onnx"},
            "evaluation": {"enabled": True, "num_samples": -1},
        }
    )
    spec = ModelSpec(
        model="yolox", task="detection2d", classes=["car", "bus"], components=[_component("yolox")], parameters={}
    )
    workspace = Workspace.create(folder / "work")
    with workspace.stage("export", tool="shared") as stage:
        stage.spec(spec)
        stage.config(resolved(config))
    dataset = open_dataset(config.data, task="detection2d")
    for backend in BACKENDS:
        answers = []
        for index in range(4):
            truth = dataset.sample(index).labels.boxes
            corners = truth.corners + rng.normal(0, 3, truth.corners.shape)
            # The last image is the worst one: nothing right is found in it.
            if index == 3:
                corners = corners + 200
            answers.append(Boxes2D.build(corners, truth.labels, rng.uniform(0.3, 0.9, len(truth))))
        _add_run(workspace, spec, backend, dataset, answers)
    evaluate(workspace.root, None, False)
    return workspace


def classification(folder: Path) -> Workspace:
    """Evaluated runs of calibration status, of two pairs in both states."""
    data = write_pair(folder / "data", [entry(0), entry(1, distortion_coefficients=[0.1, 0.01, 0.0, 0.0, 0.0])])
    workspace = workspace_of(folder / "work", data)
    spec = workspace.spec()
    dataset = open_dataset(DeployConfig.model_validate(workspace.config()).data, task="classification")
    rng = np.random.default_rng(3)
    for backend in BACKENDS:
        answers = [ClassScores.build(rng.normal(0, 1, 2)) for _ in range(len(dataset))]
        _add_run(workspace, spec, backend, dataset, answers)
    evaluate(workspace.root, None, False)
    return workspace


def segmentation3d(folder: Path) -> Workspace:
    """Evaluated runs of labels of points, of four frames of the demo, an eighth of their points."""
    write_dataset(folder / "data", "eval", [record_scene(7, "eval", 0, 4, cameras=False, labels=True)], {})
    for path in (folder / "data").rglob("*.bin"):
        width = 1 if "lidarseg" in path.parts else 5 * 4  # bytes of a label, of a point
        path.write_bytes(np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, width)[::8].tobytes())
    return labeled_runs(folder, "segmentation3d", {"format": "t4", "classes": list(SEGMENTS[:-1])}, _taken_for_trucks)


def segmentation2d(folder: Path) -> Workspace:
    """Evaluated runs of masks, of four images."""
    data = folder / "data"
    data.mkdir(parents=True)
    rng = np.random.default_rng(5)
    entries = []
    for index in range(4):
        mask = np.repeat(rng.integers(0, 3, (15, 1)), 40, axis=1).astype(np.uint8)
        mask[:, 30:] = UNLABELED
        cv2.imwrite(str(data / f"{index}.png"), mask)
        cv2.imwrite(str(data / f"{index}.jpg"), rng.integers(0, 255, (15, 40, 3), np.uint8))
        entries.append({"img_id": index, "img_path": f"{index}.jpg", "seg_map_path": f"{index}.png"})
    content = {"metainfo": {"segments": ["car", "truck", "road"]}, "data_list": entries}
    (data / "info.json").write_text(json.dumps(content))
    settings = {"format": "info", "info_file": "info.json", "classes": ["car", "truck", "road"]}
    return labeled_runs(folder, "segmentation2d", settings, _taken_for_trucks)


def _taken_for_trucks(labels: UInt8, index: int, backend: str) -> None:
    """One label in ten is wrong; ONNX Runtime takes cars for trucks, too."""
    labels[np.random.default_rng(index).random(labels.shape) < 0.1] = 2
    labels[(labels == 0) & (backend == "onnx")] = 1


def labeled_runs(
    folder: Path, task: str, data: Mapping[str, Any], spoil: Callable[[UInt8, int, str], None]
) -> Workspace:
    """Evaluated runs that answer with the labels of a data set, which lies in ``folder/data``.

    Args:
        folder: where to make the workspace.
        task: of labels.
        data: settings of the data set.
        spoil: changes the labels of a sample of a backend's run.
    """
    config = DeployConfig.model_validate(
        {
            "model": {"type": "frnet", "config": "model.py", "checkpoint": "weights.pth"},
            "task_type": task,
            "data": {"root": str(folder / "data"), **data},
            "export": {"mode": "onnx"},
            "evaluation": {"enabled": True, "num_samples": -1},
        }
    )
    dataset, found = open_dataset(config.data, task=task), find(task)
    workspace = Workspace.create(folder / "work")
    spec = ModelSpec(model="frnet", task=task, classes=list(dataset.classes), components=[_component("frnet")])
    with workspace.stage("export", tool="shared") as stage:
        stage.spec(spec)
        stage.config(resolved(config))
    for backend in BACKENDS:
        answers = []
        for index in range(len(dataset)):
            labels = found.labels_of(dataset.sample(index), labels_in(spec.classes, dataset.classes)).labels.copy()
            spoil(labels, index, backend)
            answers.append(found.container.build(np.where(labels == UNLABELED, 1, labels)))
        _add_run(workspace, spec, backend, dataset, answers)
    evaluate(workspace.root, None, False)
    return workspace


def _component(name: str) -> ComponentSpec:
    tensor = TensorSpec(name="images", dtype="float32", shape=["batch_size", 3, "height", "width"])
    return ComponentSpec(name=name, inputs=[tensor], outputs=[tensor], onnx=f"onnx/{name}.onnx")


def _add_run(workspace: Workspace, spec: ModelSpec, backend: str, dataset: Any, answers: list[Predictions]) -> None:
    header = RunHeader(
        backend=backend,
        device="cpu",
        model=spec.model,
        task=spec.task,
        classes=spec.classes,
        dataset=dataset.digest(),
        tokens=[dataset.sample(index).token for index in range(len(dataset))],
        raw_samples=[],
        fingerprint="test",
    )
    folder = f"runs/{backend}-cpu"
    with workspace.stage(f"run:{backend}-cpu", tool="shared") as stage:
        writer = RunWriter.open(stage.folder(folder), header)
        for index, answer in enumerate(answers):
            writer.commit(index, answer, {spec.components[0].name: 6.0 + index, "decode": 1.0, "total": 7.0 + index})
        for relative in writer.finish():
            stage.add_artifact(f"{folder}/{relative}", "run")


def add_engine(workspace: Workspace, *, times: bool = True) -> None:
    """The record of an engine of the component ``head``, as trt_builder leaves it."""
    layers = [
        {"name": f"conv{index}", "kind": "CaskConvolution", "precision": ("fp16", "fp32")[index % 2], "nodes": [],
         "inputs": [[f"t{index}", "fp16"]], "outputs": [[f"t{index + 1}", "fp16"]], "tactic": ""}
        for index in range(20)
    ]  # fmt: skip
    record = {
        "component": "head",
        "tensorrt": {"flavor": "tensorrt", "version": "10.8.0"},
        "architecture": "sm90",
        "gpu": {"name": "NVIDIA H200"} if times else None,
        "precision_policy": "fp16",
        "bytes": 12_000_000,
        "times_ms": {layer["name"]: 0.1 + index for index, layer in enumerate(layers)} if times else None,
        "layers": layers,
    }
    with (
        workspace.stage("build", tool="shared") as stage,
        stage.artifact("tensorrt/trt10.8-sm90-fp16/head.engine.json", kind="engine-record") as path,
    ):
        path.write_text(json.dumps(record))


def add_attribution(workspace: Workspace) -> None:
    """What `verifier attribute` leaves, with one step that loses."""
    results = {"num_reference_unmatched": 2, "num_test_unmatched": 1, "label_flips": 0}
    steps = [
        {"step": "read", "loss": {"mAP": 0.0}, "differs_in": 0, "reordered": False, "outputs": {}},
        {"step": "head", "loss": {"mAP": 0.1234}, "differs_in": 1, "reordered": False,
         "outputs": {"heatmap": {"snr_db": 21.0}}},
    ]  # fmt: skip
    found = {
        "format": 1,
        "reference": "pytorch-cpu",
        "test": "onnx-cpu",
        "truth": "labels",
        "samples": 2,
        "total": {"mAP": 0.1234},
        "steps": [{**step, "results": results} for step in steps],
        "responsible": ["head"],
    }
    with (
        workspace.stage("attribute:onnx-cpu", tool="shared") as stage,
        stage.artifact("attribution/onnx-cpu.json", kind="attribution") as path,
    ):
        path.write_text(json.dumps(found))
