"""The demo models, exported and built with TensorRT for RTX, on a machine without a GPU."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest

from shared.workspace import Workspace
from tests.support import trt_rtx
from tests.support.trt_rtx import ROOT, trt_builder
from tests.support.trt_run import reference

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which the demo CenterPoint was exported."""
    return export("centerpoint", tmp_path_factory.mktemp("demo") / "centerpoint")


def export(model: str, work: Path) -> Workspace:
    """A workspace in which a demo model was exported."""
    trt_rtx.python()
    if not (ROOT / ".venv" / "exporter" / ".ready").is_file():
        pytest.skip("the exporter's environment is not set up here; run: make setup")
    variables = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    answer = subprocess.run(
        ["make", "demo-data", "export", f"MODEL={model}", f"WORK={work}", "SET=verification.num_verify_samples=2"],
        capture_output=True, text=True, check=False, cwd=ROOT, env=variables,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return Workspace.open(work)


@pytest.mark.parametrize("policy", ["fp32", "fp16"])
def test_the_demo_models_engines_are_what_was_asked_for(exported: Workspace, policy: str) -> None:
    engines_are_what_was_asked_for(exported, policy)
    assert len(exported.spec().components) == 2


@pytest.mark.parametrize("model", ["yolox", "calibration"])
def test_the_other_models_engines_are_what_was_asked_for(model: str, tmp_path: Path) -> None:
    """ReLU6 as a clip, and two profiles of an image of dynamic size, among other things."""
    workspace = export(model, tmp_path / model)
    for policy in ("fp32", "fp16"):
        engines_are_what_was_asked_for(workspace, policy)


def engines_are_what_was_asked_for(exported: Workspace, policy: str) -> None:
    answer = trt_builder("build", "--work", exported.root, "--target", "rtx", "--set",
                         f"tensorrt.precision_policy={policy}")  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert "these engines can't run here" in answer.stderr
    records = {name: value for name, value in exported.manifest().results["engines"].items() if f"-{policy}/" in name}
    assert len(records) == len(exported.spec().components)
    for name, record in records.items():
        assert record["achieved"]["share_of_matrix_layers"] == {policy: 1.0}, name
        assert record["achieved"]["not_proven"] == []
        inputs = exported.spec().component(name.rpartition("/")[2]).inputs
        assert bool(record["profiles"]) == any(isinstance(size, str) for tensor in inputs for size in tensor.shape)
        exported.artifact(record["engine"])


def test_the_derived_encoder_computes_what_the_exported_one_computes(exported: Workspace) -> None:
    """Fewer than 3 in 1,000 of the largest feature apart, on points within 20 m (FP16 has 1 cm there)."""
    assert trt_builder("build", "--work", exported.root, "--target", "rtx", "--set",
                       "tensorrt.precision_policy=fp16").returncode == 0  # fmt: skip
    derived = next(path for path in exported.manifest().artifacts if path.endswith("pts_voxel_encoder.fp16.onnx"))
    component = exported.spec().component("pts_voxel_encoder")
    features = component.inputs[0].shape[-1]
    assert isinstance(features, int)
    random = np.random.default_rng(0)
    inputs = {"input_features": random.uniform(-1, 1, (16, 32, features)).astype(np.float32)}
    inputs["input_features"][..., :2] *= 20
    wanted = reference(onnx.load(str(exported.artifact(component.onnx))), inputs)
    got = reference(onnx.load(str(exported.artifact(derived))), inputs)
    for name, value in wanted.items():
        assert np.abs(got[name] - value).max() < 3e-3 * np.abs(value).max()


def test_the_workspace_says_nothing_of_a_skip(exported: Workspace) -> None:
    assert trt_builder("build", "--work", exported.root, "--if-available").returncode == 0
    stages = [name for name in exported.manifest().stages if name.startswith("build")]
    assert stages
    assert "build" not in stages
    assert (exported.root / "tensorrt").is_dir()
