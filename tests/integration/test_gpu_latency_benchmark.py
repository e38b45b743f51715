"""The GPU benchmark, whole, on doubles of TensorRT and CUDA: its comparisons hold, its file is complete."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from benchmarks import gpu_latency, gpu_round
from tests.support import backends_on_cpu, cuda_on_cpu, tensorrt_double
from tests.support import tiny_centerpoint as tiny

pytestmark = pytest.mark.skipif(cuda_on_cpu.compiler() is None, reason="no C++ compiler here")


def test_everything_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ws = tiny.make_workspace(tmp_path / "work", tiny.write_frames(tmp_path / "frames", [10]))
    tensorrt_double.add_engines(ws)
    tensorrt_double.use(monkeypatch, tmp_path)
    monkeypatch.setattr(gpu_latency, "driver", cuda_on_cpu.HostDriver)
    monkeypatch.setattr(gpu_latency, "WARM_UP_REQUESTS", 1)
    monkeypatch.setattr(gpu_latency, "STAGED_REQUESTS", 2)
    monkeypatch.setattr(gpu_latency, "SECONDS", 0.2)
    out = tmp_path / "gpu_latency.json"
    values = gpu_latency.measure(ws.root, out, points=800, requests=3, frames=3, soak_requests=10)
    assert json.loads(out.read_text()).keys() == values.keys()
    assert values["grown_bytes"] == 0
    assert values["boxes_against_awml_like"] in ("identical", "same set")
    assert values["against_numpy"]["boxes"] > 3
    assert "different" not in values["against_numpy"]
    assert values["against_itself"] == {"identical": 3}
    assert values["soak"]["requests"] == 10
    assert {"against trtexec-10", "against trtexec-11", "times_faster_than_awml_like", "streams"} <= values.keys()
    table = gpu_round.tables(tmp_path)
    for what in ("a request", "stages [ms]", "against the engines as trtexec-11", "boxes of a repeat", "soak"):
        assert f"| {what} | " in table


@pytest.mark.parametrize("backend", ["onnx", "pytorch"])
def test_the_other_backends_have_the_same_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    ws = tiny.make_workspace(tmp_path / "work", tiny.write_frames(tmp_path / "frames", [10]))
    backends_on_cpu.use(monkeypatch, tmp_path)
    monkeypatch.setattr(gpu_latency, "WARM_UP_REQUESTS", 1)
    monkeypatch.setattr(gpu_latency, "STAGED_REQUESTS", 2)
    monkeypatch.setattr(gpu_latency, "SECONDS", 0.2)
    out = tmp_path / f"{backend}_latency.json"
    values = gpu_latency.measure(ws.root, out, backend_name=backend, points=800, requests=3, frames=3, soak_requests=10)
    assert values["against_numpy"]["boxes"] > 3
    assert "different" not in values["against_numpy"]
    assert values["against_itself"] == {"identical": 3}
    assert 0 < values["share_of_components"] < 1
    assert ("streams_refused" in values) is (backend == "onnx")
    (tmp_path / "gpu_latency.json").write_text(json.dumps({"total": values["total"]}))
    table = gpu_round.tables(tmp_path)
    title = {"onnx": "ONNX Runtime", "pytorch": "PyTorch"}[backend]
    assert f"| what | TensorRT, FP16 | {title} |" in table
    assert "| a driver like AWML's | n/a | median" in table.replace(gpu_round.MISSING, "n/a")
