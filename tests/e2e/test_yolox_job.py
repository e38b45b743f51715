"""`make yolox-all` on a small data set: export, both backends, verification, metrics."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from shared.manifest import Manifest, read_manifest
from shared.runs import Run
from shared.tasks.detection2d import Boxes2D
from tests.support.jobs import ROOT, make

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of a whole run over two frames of six cameras."""
    root = tmp_path_factory.mktemp("yolox")
    command = [sys.executable, "-m", "demo", "generate", "--out", str(root / "demo"), "--frames", "2"]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    data = root / "demo" / "info" / "yolox_infos_eval.json"
    answer = make("yolox-all", f"WORK={root / 'work'}", f"DATA={data}", f"DATA_ROOT={root / 'demo'}")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return root / "work"


@pytest.fixture(scope="module")
def manifest(job: Path) -> Manifest:
    return read_manifest(job / "manifest.json")


def test_every_stage_ends_well(manifest: Manifest) -> None:
    done = {name for name, stage in manifest.stages.items() if stage.status == "done"}
    assert {"export", "run:pytorch-cpu", "run:onnx-cpu", "verify", "evaluate"} <= done


def test_the_demo_model_is_good_enough(manifest: Manifest) -> None:
    """Pascal VOC's mAP at IoU 0.5 is 0.5 at least, PyTorch = ONNX to 0.002."""
    metrics = manifest.results["metrics"]
    pytorch, onnx = metrics["pytorch-cpu"], metrics["onnx-cpu"]
    assert onnx["mAP"] >= 0.5
    for name in ("mAP", "COCO AP", "COCO AP50"):
        assert pytorch[name] == pytest.approx(onnx[name], abs=0.002)


def test_all_agree_with_mmdet(manifest: Manifest) -> None:
    summary = manifest.results["verification"]["summary"]
    assert summary["passed"]
    assert {"reference__onnx-cpu", "reference__pytorch-cpu", "pytorch-cpu__onnx-cpu"} <= summary["comparisons"].keys()


def test_there_are_boxes_in_every_camera(job: Path) -> None:
    run = Run.open(job / "runs" / "onnx-cpu")
    assert len(run) == 12
    assert all(len(run.predictions(index, Boxes2D)) for index in range(12))
