"""The commands of trt_builder: what is skipped and why, what this machine has, profiles from a data set."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from shared import cuda, engines
from shared.cuda import GpuInfo
from shared.manifest import MANIFEST_NAME, Manifest, update_manifest
from shared.runs import RunWriter
from shared.tasks.detection3d import Boxes3D
from shared.workspace import Workspace
from tests.support import tensorrt_double
from tests.support.run_files import run_header
from tests.support.trt_workspaces import ENCODER, HEAD, encoder, make_workspace
from trt_builder import target as targets
from trt_builder.cli import cli
from trt_builder.compat import TensorRT
from trt_builder.target import Target

H200 = GpuInfo(0, "NVIDIA H200", (9, 0), 132, 150 << 30)


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without TensorRT and GPU."""
    for module in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(cuda, "find_gpus", list)


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.mark.usefixtures("nothing")
def test_without_tensorrt_build_ends_with_4_and_one_line(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path, {ENCODER: encoder()})
    answer = invoke("build", "--work", ws.root)
    assert answer.exit_code == 4
    assert answer.stderr.startswith("error: no TensorRT: Python package 'tensorrt' can't be imported")
    assert answer.stderr.count("\n") == 1
    assert [name for name in ws.manifest().stages if name.startswith("build")] == []


@pytest.mark.usefixtures("nothing")
@pytest.mark.parametrize("more", [(), ("--if-available",)])
def test_a_wrong_override_is_told_where_there_is_no_tensorrt_too(tmp_path: Path, more: tuple[str, ...]) -> None:
    ws = make_workspace(tmp_path)
    answer = invoke("build", "--work", ws.root, "--set", "tensorrt.optimization_level=9", *more)
    assert answer.exit_code == 2
    assert "optimization_level" in answer.stderr


@pytest.mark.usefixtures("nothing")
def test_if_available_records_the_skip_and_its_reason(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path, {ENCODER: encoder()})
    assert invoke("build", "--work", ws.root, "--if-available").exit_code == 0
    stage = ws.manifest().stages["build"]
    assert stage.status == "skipped"
    assert stage.reason is not None
    assert "no TensorRT" in stage.reason


def test_a_build_takes_an_earlier_skip_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ws = make_workspace(tmp_path, {ENCODER: encoder()})
    ws.stage("build", tool="trt_builder").skip("no TensorRT")
    target = Target(TensorRT("tensorrt", tensorrt_double.make("10.9.0"), "10.9.0"), H200)
    monkeypatch.setattr(targets, "find", lambda wanted: target)
    monkeypatch.setattr(cuda, "use_gpu", lambda index: None)
    monkeypatch.setattr(engines, "layer_times", lambda trt, engine: {})
    answer = invoke("build", "--work", ws.root, "--if-available")
    assert answer.exit_code == 0, answer.output
    assert {name for name in ws.manifest().stages if name.startswith("build")} == {f"build:{target.name('auto')}"}


def test_tensorrt_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_double.make("10.9.0"))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setattr(cuda, "find_gpus", list)
    answer = invoke("build", "--work", make_workspace(tmp_path, {ENCODER: encoder()}).root)
    assert answer.exit_code == 4
    assert "no GPU: TensorRT 10.9.0 is installed, but the driver shows no NVIDIA GPU" in answer.stderr
    assert "--gpus all" in answer.stderr


def test_a_config_that_asks_for_no_engines_is_skipped_by_make_and_built_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_double.make("10.9.0"))
    monkeypatch.setattr(cuda, "find_gpus", lambda: [H200])
    ws = make_workspace(tmp_path, {ENCODER: encoder()}, {"export": {"mode": "onnx"}})
    assert invoke("build", "--work", ws.root, "--if-available").exit_code == 0
    assert ws.manifest().stages["build"].reason == "export.mode is onnx: no engines are asked for"


def test_no_workspace_is_an_input_error(tmp_path: Path) -> None:
    answer = invoke("build", "--work", tmp_path / "none", "--if-available")
    assert answer.exit_code == 3
    assert "no manifest here" in answer.stderr


@pytest.mark.usefixtures("nothing")
def test_doctor_names_what_is_missing() -> None:
    answer = invoke("doctor")
    assert answer.exit_code == 4
    assert "MISS TensorRT " in answer.output
    assert "MISS GPU 0" in answer.output


def test_doctor_is_content_with_tensorrt_and_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_double.make("10.3.0"))
    monkeypatch.setattr(cuda, "find_gpus", lambda: [H200])
    answer = invoke("doctor")
    assert answer.exit_code == 0
    assert "NVIDIA H200, sm90, 132 SM, 150.0 GiB" in answer.output
    assert "issue 4419" in answer.output


def run_with(ws: Workspace, counts: list[int], **more: Any) -> None:
    writer = RunWriter.open(ws.path("runs/onnx-cpu"), run_header(len(counts), model="centerpoint"))
    for index, count in enumerate(counts):
        writer.commit(index, Boxes3D.empty(), {"total": 1.0}, {"voxels": count, **more}, None)
    writer.finish()


def test_suggested_profiles_cover_the_percentile_and_load_as_config(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path, config={})
    counts = [int(value) for value in np.linspace(20, 150, 50)]
    run_with(ws, counts)
    answer = invoke("suggest-profiles", "--work", ws.root)
    assert answer.exit_code == 0, answer.output
    assert "# from run onnx-cpu" in answer.output
    assert "over 50 samples" in answer.output
    components = yaml.safe_load(answer.output)["components"]
    profile = components[ENCODER]["tensorrt_profile"]["input_features"]
    assert profile["min_shape"] == [1, 8, 11]
    assert profile["max_shape"][0] == 200  # the model's limit, below the step of 1,000
    assert profile["opt_shape"][0] <= profile["max_shape"][0]
    assert components[HEAD]["tensorrt_profile"]["spatial_features"]["max_shape"] == [1, 16, 16, 16]
    from shared.config.schema import DeployConfig

    DeployConfig.model_validate({"model": {"type": "centerpoint"}, "components": components})


def test_suggest_says_when_samples_do_not_fit(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path)
    run_with(ws, [100, 200], voxels_dropped=50)
    answer = invoke("suggest-profiles", "--work", ws.root)
    assert "the model takes 200 voxels at most; 275 would be needed" in answer.output
    assert "1 of 2 samples have more voxels than this profile takes" in answer.output


def test_suggest_for_a_model_without_voxels_says_so(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path)

    def without(manifest: Manifest) -> None:
        assert manifest.spec is not None
        del manifest.spec.parameters["max_voxels"]

    update_manifest(ws.root / MANIFEST_NAME, without)
    answer = invoke("suggest-profiles", "--work", ws.root)
    assert answer.exit_code == 3
    assert "has no inputs whose size differs from sample to sample" in answer.stderr


def test_suggest_without_a_run_says_what_to_do(tmp_path: Path) -> None:
    answer = invoke("suggest-profiles", "--work", make_workspace(tmp_path).root)
    assert answer.exit_code == 3
    assert "runtime run --backend onnx" in answer.stderr
