"""CenterPoint on a GPU at engine speed: a network of the 121 m model's size, FP16, 200,000 points.

One run of `benchmarks.gpu_latency` measures; each test asks for one figure. SOAK=20000 asks for the long soak, FIGURES
names a file that keeps the figures.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pycuda", reason="pycuda is not installed here; the runtime image has it")
pytest.importorskip("tensorrt", reason="TensorRT is not installed here; the runtime image has it")

from benchmarks import data_set, gpu_latency, trt_engines
from runtime.backends import tensorrt as backend
from runtime.cuda.gpu import open_gpu
from runtime.devices import Device
from runtime.run import run
from shared.errors import EnvironmentLacks, InferenceError
from shared.manifest import MANIFEST_NAME, Manifest, update_manifest
from shared.runs import Run
from shared.workspace import Workspace
from tests.support.trt_workspaces import ENCODER, FEATURES, POINTS, encoder, full_size_workspace, make_workspace
from trt_builder.build import build_all

# Engines of full size build for two minutes, and the one measuring run with its soak takes three.
pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, timings: Path) -> Iterator[Path]:
    try:
        open_gpu(Device("cuda"))
    except EnvironmentLacks as missing:
        pytest.skip(str(missing))
    root = full_size_workspace(tmp_path_factory.mktemp("full") / "work").root
    shutil.copytree(timings, root / "tensorrt" / "timing", dirs_exist_ok=True)
    yield root
    shutil.copytree(root / "tensorrt" / "timing", timings, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def rows(work: Path, verdict: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same engines for programs that give them FP32 rows, which the bare engines and AWML's driver are."""
    other = full_size_workspace(tmp_path_factory.mktemp("rows") / "work").root
    shutil.copytree(work / "tensorrt" / "timing", other / "tensorrt" / "timing")
    overrides = ["tensorrt.precision_policy=fp16", "tensorrt.tactic_sources=[]", "tensorrt.input_formats=rows"]
    with trt_engines.verdicts():
        build_all(other, target="tensorrt", overrides=overrides)
    return other


@pytest.fixture(scope="module")
def verdict(work: Path) -> list[str]:
    """What the proof of the precision said of the engines. Their speed is another question, asked in any case."""
    with trt_engines.verdicts() as said:
        overrides = ["tensorrt.precision_policy=fp16", "tensorrt.tactic_sources=[]"]
        build_all(work, target="tensorrt", overrides=overrides)
    return said


@pytest.fixture(scope="module")
def figures(work: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    kept = os.environ.get("FIGURES")
    out = Path(kept) if kept else tmp_path_factory.mktemp("figures") / "gpu_latency.json"
    soak = int(os.environ.get("SOAK", "2000"))
    return gpu_latency.measure(work, out, rows=rows, requests=1000, frames=12, soak_requests=soak)


def test_the_engines_are_proven(verdict: list[str]) -> None:
    assert verdict == []


def test_the_pipeline_is_as_fast_as_the_bare_engines(figures: dict[str, Any]) -> None:
    # The engines of the graph as trtexec 11 measures them: FP32 rows, without copies, a CUDA graph. From ordinary
    # memory a request took 0.932 to 1.001 times as long, by how fast the host copies 4 MB (0.28 to 0.37 ms).
    against = figures["against trtexec-11"]
    assert against["times"] <= 1.0, json.dumps(figures["stages"])
    assert against["times_page_locked"] <= 0.93, json.dumps(figures["stages"])


def test_latency_has_no_tail(figures: dict[str, Any]) -> None:
    assert figures["total"]["p99"] <= 1.1 * figures["total"]["median"]


def test_nothing_is_allocated_after_the_warm_up(figures: dict[str, Any]) -> None:
    assert figures["grown_bytes"] == 0


def test_four_times_faster_than_awmls_driver(figures: dict[str, Any]) -> None:
    assert figures["times_faster_than_awml_like"]["total"] >= 4
    assert figures["boxes_against_awml_like"] in ("identical", "same set")


def test_the_boxes_are_those_of_the_numpy_steps(figures: dict[str, Any]) -> None:
    assert figures["against_numpy"]["boxes"] > 50
    assert "different" not in figures["against_numpy"]


def test_a_second_pass_over_the_frames_gives_the_same_to_the_bit(figures: dict[str, Any]) -> None:
    assert set(figures["against_itself"]) == {"identical"}


def test_two_streams_give_half_as_much_again_or_the_gpu_is_full(figures: dict[str, Any]) -> None:
    # Full: what it does when the same lanes are launched back to back, without the host between.
    assert figures["streams"]["gain"] >= 1.5 or figures["streams"]["busy"] >= 0.95


def test_the_soak_neither_grows_nor_drifts(figures: dict[str, Any]) -> None:
    """A power cap, heat and other processes are no drift; what they explain is in the figures."""
    assert figures["soak"]["grown_bytes"] == 0
    assert figures["soak"]["drift"]["cause"] != "drift", figures["soak"]["tenths"]


def test_a_data_set_is_the_same_to_the_bit_with_requests_in_flight(
    work: Path, verdict: list[str], tmp_path: Path
) -> None:
    copy, frames = Path(shutil.copytree(work, tmp_path / "work")), tmp_path / "frames"
    section = data_set.make_frames(frames, 12, 60_000, 2)

    def change(manifest: Manifest) -> None:
        assert manifest.spec is not None
        manifest.config = {**(manifest.config or {}), "data": section}
        manifest.spec = data_set.with_sweeps(manifest.spec, 2)

    update_manifest(copy / MANIFEST_NAME, change)
    predictions = copy / "runs/tensorrt-cuda0/predictions.npz"
    run(copy, "tensorrt", "cuda", num_samples=12, in_flight=1, readers=0)
    alone = predictions.read_bytes()
    run(copy, "tensorrt", "cuda", num_samples=12, in_flight=2, readers=3)
    assert predictions.read_bytes() == alone
    assert Run.open(predictions.parent).header.details["in_flight"] == 2


def test_a_shape_outside_the_profile_is_named(work: Path, verdict: list[str]) -> None:
    ws = Workspace.open(work)
    files = {name: ws.artifact(path) for name, path in backend.artifacts(ws, ws.spec()).items()}
    session = backend.load(files, ws.spec(), Device("cuda"), None)
    with pytest.raises(InferenceError, match="the engine takes"):
        session.run("pts_voxel_encoder", {"input_features": np.zeros((96_001, 32, 11), np.float32)})


@pytest.mark.usefixtures("lean_library")
def test_version_compatible_engines_load_and_answer_the_same(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path, {ENCODER: encoder()})
    features = np.random.default_rng(0).standard_normal((50, POINTS, FEATURES)).astype(np.float32)
    answers = []
    for compatible in ("false", "true"):
        overrides = [f"tensorrt.version_compatible={compatible}", "tensorrt.precision_policy=fp32"]
        build_all(ws.root, target="tensorrt", overrides=[*overrides, "tensorrt.tactic_sources=[]"])
        files = {name: ws.artifact(path) for name, path in backend.artifacts(ws, ws.spec()).items()}
        session = backend.load(files, ws.spec(), Device("cuda"), None)
        answers.append(session.run(ENCODER, {"input_features": features})["pillar_features"])
    assert ws.manifest().results["engines"].popitem()[1]["version_compatible"] is True
    np.testing.assert_allclose(answers[1], answers[0], rtol=1e-4, atol=1e-5)


def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(EnvironmentLacks, match="the driver shows"):
        open_gpu(Device("cuda", 99))
