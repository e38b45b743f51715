"""`runtime bench --batch`: requests of several samples, on doubles of TensorRT and CUDA."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("onnxruntime")

from runtime.cli import cli
from shared.workspace import Workspace
from tests.support import cuda_on_cpu, engines_on_cpu, tiny_yolox
from tests.support.image_engines import workspace

pytestmark = pytest.mark.skipif(cuda_on_cpu.compiler() is None, reason="no C++ compiler here")

COUNT = 4


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network that takes four images, and a data set of three."""
    engines_on_cpu.use(monkeypatch, cuda_on_cpu.KEPT)
    monkeypatch.setattr("runtime.engine_times.measure.__defaults__", ("trtexec-11", 0.1))
    monkeypatch.setattr("runtime.bench._STAGED_REQUESTS", 3)
    monkeypatch.setattr("runtime.warm_up._WINDOW", 1)
    rows = np.stack([tiny_yolox.random_rows(seed) for seed in range(COUNT)])
    tiny_yolox.write_images(tmp_path / "images")
    return workspace(tmp_path / "work", tiny_yolox.spec(COUNT), rows, (60, 80))


def bench(work: Path, *more: str) -> Any:
    options = ["--backend", "tensorrt", "--device", "cuda", "--requests", "4", "--seconds", "0.1", "--warm-up", "0"]
    images = str(work.parent / "images")
    return CliRunner().invoke(cli, ["bench", "--work", str(work), "--data", images, *options, *more])


def test_requests_of_several_samples(work: Path) -> None:
    alone = bench(work)
    assert alone.exit_code == 0, alone.output
    together = bench(work, "--batch", str(COUNT), "--streams", "2", "--like", "trtexec-11", "--page-locked")
    assert together.exit_code == 0, together.output
    assert "4 samples a request, from 0 on" in together.output
    assert "2 streams: " in together.output
    written = json.loads((work / "bench/tensorrt-cuda0.json").read_text())
    assert written["engines"]["yolox"]["shapes"] == {"images": [COUNT, 3, 96, 96]}
    assert written["counters"]["candidates"] > tiny_yolox.ROWS, "of all images"
    result = Workspace.open(work).manifest().results["bench"]["tensorrt-cuda0"]
    assert result["batch"] == COUNT
    assert result["conditions"]["batch"] == str(COUNT), "it is compared with its like alone"


def test_more_samples_than_the_network_takes(work: Path) -> None:
    refused = bench(work, "--batch", "6")
    assert refused.exit_code == 2
    assert "the network takes 4 at a time, not 6" in refused.output
    assert "batch_size=6" in refused.output
