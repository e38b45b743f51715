"""The benchmark of YOLOX and the calibration classifier, whole, on doubles of TensorRT and CUDA."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from benchmarks import gpu_images
from tests.support import cuda_on_cpu, engines_on_cpu, tiny_yolox
from tests.support.calibration_data import spec as calibration_spec
from tests.support.image_engines import workspace

pytestmark = pytest.mark.skipif(cuda_on_cpu.compiler() is None, reason="no C++ compiler here")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    engines_on_cpu.use(monkeypatch, cuda_on_cpu.KEPT)
    monkeypatch.setattr(gpu_images, "SECONDS", 0.1)
    monkeypatch.setattr(gpu_images, "WARM_UP_REQUESTS", 1)
    monkeypatch.setattr(gpu_images, "STAGED_REQUESTS", 2)
    monkeypatch.setattr(gpu_images, "POINTS", 500)


def figures(monkeypatch: pytest.MonkeyPatch, work: Path, *more: str) -> dict[str, Any]:
    """What the benchmark measures of a workspace."""
    out = work.with_name("figures.json")
    arguments = ["--work", str(work), "--size", "60", "80", "--requests", "3", "--frames", "2", "--candidates", "50"]
    monkeypatch.setattr(sys, "argv", ["gpu_images.py", *arguments, "--out", str(out), *more])
    gpu_images.main()
    values: dict[str, Any] = json.loads(out.read_text())
    return values


@pytest.mark.parametrize("model", ["yolox", "calibration"])
def test_everything_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    if model == "yolox":
        spec, answer = tiny_yolox.spec(), tiny_yolox.random_rows(0)[None]
    else:
        spec, answer = calibration_spec(), np.array([[-1.0, 2.0]], np.float32)
    work = workspace(tmp_path / "work", spec, answer, (60, 80))
    more = ["--cameras", "2", "--batch-engines", str(work)] if model == "yolox" else []
    values = figures(monkeypatch, work, *more)
    assert values["against_numpy"] == {"inputs": 2, "identical": 2, "identical when repeated": 2}
    assert values["total against the engines"] > 0
    assert values["streams"]["streams"] == 2
    assert set(values["stages"]) > {"upload", "download"}
    assert ("several cameras" in values) is (model == "yolox")
    if model == "yolox":
        assert 50 <= values["counters"]["candidates"] <= 60


def test_images_of_several_cameras_in_one_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.stack([tiny_yolox.random_rows(seed) for seed in range(3)])
    work = workspace(tmp_path / "work", tiny_yolox.spec(3), rows, (60, 80))
    values = figures(monkeypatch, work, "--cameras", "3", "--batch")
    assert values["against_numpy"] == {"inputs": 6, "identical": 6, "identical when repeated": 6}
    assert values["total_page_locked against the engines"] > 0
    assert values["streams"]["streams"] == 2
    assert values["counters"]["candidates"] > 100, "of all images"
