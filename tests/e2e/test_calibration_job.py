"""`make calibration-all` on a small data set: export, both backends, verification, metrics."""

from __future__ import annotations

import subprocess
import sys

import pytest

from shared.manifest import Manifest, read_manifest
from tests.support.jobs import ROOT, make

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Of a whole run over two frames of six cameras, in both states."""
    root = tmp_path_factory.mktemp("calibration")
    command = [sys.executable, "-m", "demo", "generate", "--out", str(root / "demo"), "--frames", "2"]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    data = root / "demo" / "info" / "t4dataset_demo_calibration_infos_eval.pkl"
    answer = make("calibration-all", f"WORK={root / 'work'}", f"DATA={data}", f"DATA_ROOT={root / 'demo'}")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return read_manifest(root / "work" / "manifest.json")


def test_every_stage_ends_well(manifest: Manifest) -> None:
    done = {name for name, stage in manifest.stages.items() if stage.status == "done"}
    assert {"export", "run:pytorch-cpu", "run:onnx-cpu", "verify", "evaluate"} <= done


def test_the_demo_model_is_good_enough(manifest: Manifest) -> None:
    """Right about 23 of 24 pictures at least, PyTorch = ONNX to 0.002; all 480 of the demo: docs/calibration.md."""
    metrics = manifest.results["metrics"]
    pytorch, onnx = metrics["pytorch-cpu"], metrics["onnx-cpu"]
    assert onnx["accuracy"] >= 0.95
    assert pytorch["accuracy"] == pytest.approx(onnx["accuracy"], abs=0.002)


def test_all_agree_with_the_framework(manifest: Manifest) -> None:
    summary = manifest.results["verification"]["summary"]
    assert summary["passed"]
    assert {"reference__onnx-cpu", "reference__pytorch-cpu", "pytorch-cpu__onnx-cpu"} <= summary["comparisons"].keys()
