"""The GPU benchmark, whole, on doubles of TensorRT and CUDA: its comparisons hold, its file is complete."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from benchmarks import gpu_latency
from benchmarks.gpu_round_tables import tables
from runtime.backends import onnx
from runtime.models.centerpoint.pipeline import build
from runtime.pipeline import DevicePipeline, Inference
from shared.table import MISSING
from tests.support import backends_on_cpu, cuda_on_cpu, engines_on_cpu
from tests.support import tiny_centerpoint as tiny

pytestmark = pytest.mark.skipif(cuda_on_cpu.compiler() is None, reason="no C++ compiler here")


def test_everything_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ws = tiny.make_workspace(tmp_path / "work", tiny.write_frames(tmp_path / "frames", [10]))
    engines_on_cpu.add_engines(ws)
    engines_on_cpu.use(monkeypatch, cuda_on_cpu.KEPT)
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
    streams = values["streams"]
    assert streams["busy"] == streams["per_second"] / streams["device_per_second"] > 0
    assert streams["busy_one"] == streams["one_per_second"] / streams["device_one_per_second"] > 0
    table = tables(tmp_path)
    for what in ("a request", "stages [ms]", "against the engines as trtexec-11", "boxes of a second pass", "soak"):
        assert f"| {what} | " in table


@pytest.mark.parametrize("backend", ["onnx", "pytorch"])
def test_the_other_backends_have_the_same_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    ws = tiny.make_workspace(tmp_path / "work", tiny.write_frames(tmp_path / "frames", [10]))
    backends_on_cpu.use(monkeypatch, cuda_on_cpu.KEPT)
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
    table = tables(tmp_path)
    title = {"onnx": "ONNX Runtime", "pytorch": "PyTorch"}[backend]
    assert f"| what | TensorRT, FP16 | {title} |" in table
    assert "| a driver like AWML's | n/a | median" in table.replace(MISSING, "n/a")


def test_an_encoder_that_depends_on_the_number_of_rows_is_told_from_steps_that_are_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws = tiny.make_workspace(tmp_path / "work", tiny.write_frames(tmp_path / "frames", [10]))
    spec = ws.spec()
    backends_on_cpu.use(monkeypatch, cuda_on_cpu.KEPT)
    files = {name: ws.artifact(path) for name, path in onnx.artifacts(ws, spec).items()}
    session = onnx.load(files, spec, onnx.Device("cuda"), None)
    assert isinstance(session, onnx.OnnxDeviceSession)
    pipeline = build(spec, session)
    assert isinstance(pipeline, DevicePipeline)
    frames = [gpu_latency.frame(count, 4, count) for count in (300, 600)]
    notes = gpu_latency.Notes(tmp_path / "figures.json")

    gpu_latency.against_numpy(notes, spec, session, pipeline, frames)
    gpu_latency.rows_of_the_encoder(notes, spec, session, pipeline)
    assert "different" not in notes.values["against_numpy"]
    assert "differences" not in notes.values
    assert not any(value > 1e-5 for value in notes.values["rows_of_the_encoder"]["different"].values())

    run = session.run
    pillars = spec.component("pts_voxel_encoder").outputs[0].name

    def by_rows(component: str, inputs: Any) -> Any:
        outputs = dict(run(component, inputs))
        if pillars in outputs:
            outputs[pillars] = outputs[pillars] + np.float32(len(outputs[pillars]))
        return outputs

    monkeypatch.setattr(session, "run", by_rows)
    gpu_latency.against_numpy(notes, spec, session, pipeline, frames)
    gpu_latency.rows_of_the_encoder(notes, spec, session, pipeline)
    assert notes.values["against_numpy"]["other rows"] == len(frames)
    assert [each["frame"] for each in notes.values["differences"]] == [0, 1]
    assert notes.values["against_itself"] == {"identical": len(frames)}
    assert len(notes.values["rows_of_the_encoder"]["different"]) == notes.values["rows_of_the_encoder"]["sizes"]

    collect = pipeline.collect

    def wrong_steps() -> Inference:
        answer = collect()
        return replace(answer, predictions=answer.predictions.select(np.arange(len(answer.predictions) - 1)))

    monkeypatch.setattr(pipeline, "collect", wrong_steps)
    gpu_latency.against_numpy(notes, spec, session, pipeline, frames)
    assert notes.values["against_numpy"]["different"] == len(frames)


def test_the_clock_of_the_first_half_and_of_the_second_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter(["1980", "1980", "1965", "1650", "1650"])
    ended = threading.Event()

    def conditions(_: int) -> dict[str, str]:
        mhz = next(told, None)
        if mhz is None:
            ended.set()
            return {}
        return {"sm_clock_mhz": mhz}

    monkeypatch.setattr(gpu_latency, "gpu_conditions", conditions)
    monkeypatch.setattr(gpu_latency, "CLOCK_SECONDS", 0.001)
    clocks = gpu_latency.Clocks()
    with clocks:
        assert ended.wait(60)
    assert clocks.halves() == (1980.0, 1650.0)
    assert clocks.median() == 1965.0


def test_a_card_may_tell_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_latency, "gpu_conditions", lambda _: {})
    with gpu_latency.Clocks() as clocks:
        pass
    assert clocks.median() is None
    assert clocks.halves() == (None, None)
