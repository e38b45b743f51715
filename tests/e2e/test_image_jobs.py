"""`make yolox-all` and `make calibration-all` on a small data set: export, both backends, verification, metrics."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from shared.manifest import Manifest, read_manifest
from shared.runs import Run
from shared.tasks.detection2d import Boxes2D
from tests.support.jobs import ROOT, make

pytestmark = pytest.mark.e2e

INFOS = {"yolox": "yolox_infos_eval.json", "calibration": "t4dataset_demo_calibration_infos_eval.pkl"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two frames of six cameras."""
    data = tmp_path_factory.mktemp("data") / "demo"
    command = [sys.executable, "-m", "demo", "generate", "--out", str(data), "--frames", "2"]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    return data


def job(model: str, demo: Path, work: Path) -> Manifest:
    """The manifest of a whole run, which ended well and in which all agree with the framework."""
    answer = make(f"{model}-all", f"WORK={work}", f"DATA={demo / 'info' / INFOS[model]}", f"DATA_ROOT={demo}")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    manifest = read_manifest(work / "manifest.json")
    done = {name for name, stage in manifest.stages.items() if stage.status == "done"}
    assert {"export", "run:pytorch-cpu", "run:onnx-cpu", "verify", "evaluate"} <= done
    summary = manifest.results["verification"]["summary"]
    assert summary["passed"]
    assert {"reference__onnx-cpu", "reference__pytorch-cpu", "pytorch-cpu__onnx-cpu"} <= summary["comparisons"].keys()
    return manifest


def test_yolox(demo: Path, tmp_path: Path) -> None:
    """Pascal VOC's mAP at IoU 0.5 is 0.5 at least, PyTorch = ONNX to 0.002; boxes in the images of every camera."""
    metrics = job("yolox", demo, tmp_path / "work").results["metrics"]
    pytorch, onnx = metrics["pytorch-cpu"], metrics["onnx-cpu"]
    assert onnx["mAP"] >= 0.5
    for name in ("mAP", "COCO AP", "COCO AP50"):
        assert pytorch[name] == pytest.approx(onnx[name], abs=0.002)
    run = Run.open(tmp_path / "work" / "runs" / "onnx-cpu")
    assert len(run) == 12
    assert all(len(run.predictions(index, Boxes2D)) for index in range(12))


def test_calibration(demo: Path, tmp_path: Path) -> None:
    """Right about 23 of 24 pictures at least, PyTorch = ONNX to 0.002; all 480 of the demo: docs/calibration.md."""
    metrics = job("calibration", demo, tmp_path / "work").results["metrics"]
    pytorch, onnx = metrics["pytorch-cpu"], metrics["onnx-cpu"]
    assert onnx["accuracy"] >= 0.95
    assert pytorch["accuracy"] == pytest.approx(onnx["accuracy"], abs=0.002)
