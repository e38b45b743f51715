"""`benchmarks/data_set.py` on a tiny CenterPoint, without a GPU: what it says is what the run recorded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from shared.manifest import MANIFEST_NAME
from tests.support import tiny_centerpoint as tiny

ROOT = Path(__file__).parents[2]


def test_a_run_and_its_requests_are_measured_on_frames_that_are_made(tmp_path: Path) -> None:
    tiny.make_workspace(tmp_path / "work", tiny.write_frames(tmp_path / "frames", [300]), max_voxels=250)
    before = (tmp_path / "work" / MANIFEST_NAME).read_bytes()
    options = [
        *("--work", tmp_path / "work", "--folder", tmp_path / "folder", "--out", tmp_path / "out.json"),
        *("--backend", "onnx", "--device", "cpu"),
        *("--frames", "45", "--points", "1200", "--sweeps", "2", "--seconds", "0"),
    ]
    answer = subprocess.run(
        [sys.executable, ROOT / "benchmarks/data_set.py", *map(str, options)],
        check=True,
        capture_output=True,
        text=True,
    )
    measured = json.loads((tmp_path / "out.json").read_text())
    assert measured["samples"] == 45
    assert measured["ratio"] == pytest.approx(measured["run per second"] / measured["bench per second"])
    assert set(measured["run"]["parts"]) == {"read", "upload", "inference", "commit"}
    assert measured["said"] in answer.stdout
    assert not (tmp_path / "folder").exists()
    assert (tmp_path / "work" / MANIFEST_NAME).read_bytes() == before
