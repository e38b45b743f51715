"""Engines on a real GPU: every policy that this TensorRT has, what they compute, the cache, and what breaks."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from shared import engines
from shared.errors import BuildError, EnvironmentLacks
from shared.files import sha256_of_file
from shared.workspace import Workspace
from tests.support import trt_run
from tests.support.trt_workspaces import (
    CHANNELS,
    ENCODER,
    FEATURES,
    HEAD,
    POINTS,
    encoder,
    export,
    head,
    make_workspace,
    with_other_weights,
)
from trt_builder import timing_cache
from trt_builder.build import build_all
from trt_builder.cli import cli
from trt_builder.refit import refit_all
from trt_builder.target import Target

pytestmark = pytest.mark.gpu

# cuBLAS and cuDNN are no part of what these tests are about, and not everywhere installed; nor are the fastest kernels,
# which level 3, the usual one, looks for in five to ten times the time. The 121 m size is built with that, in all
# policies (`benchmarks/trt_engines.py`), and the demos' models are.
CONFIG: dict[str, Any] = {"tensorrt": {"tactic_sources": [], "optimization_level": 1}}
# With many kernels to time, for what is kept of their times.
SEARCHING: dict[str, Any] = {"tensorrt": {"tactic_sources": []}}

# Largest error relative to the largest output, per precision: a few units in the last place of its mantissa
# (FP32 2^-24, TF32 and FP16 2^-11, BF16 2^-8), for a dozen layers.
TOLERANCE = {"fp32": 1e-5, "fp32_tf32": 5e-3, "auto": 5e-3, "fp16": 1e-2, "bf16": 6e-2, "strongly_typed": 5e-3}


def inputs_of(component: str, voxels: int = 50) -> dict[str, np.ndarray[Any, Any]]:
    random = np.random.default_rng(3)
    if component == ENCODER:
        return {"input_features": random.standard_normal((voxels, POINTS, FEATURES)).astype(np.float32)}
    return {"spatial_features": random.standard_normal((1, CHANNELS, 16, 16)).astype(np.float32)}


def record_of(ws: Workspace, target: Target, policy: str, component: str) -> dict[str, Any]:
    value: dict[str, Any] = ws.manifest().results["engines"][f"{target.name(policy)}/{component}"]
    return value


def relative_errors(ws: Workspace, target: Target, policy: str, component: str, voxels: int = 50) -> float:
    record = record_of(ws, target, policy, component)
    runtime, engine = trt_run.load(
        target, ws.artifact(record["engine"]), version_compatible=record["version_compatible"]
    )
    inputs = inputs_of(component, voxels)
    got = trt_run.run(target, engine, inputs)
    wanted = trt_run.reference(onnx.load(str(ws.path(f"onnx/{component}.onnx"))), inputs)
    assert set(got) == set(wanted)
    del engine, runtime
    return max(float(np.abs(got[name] - wanted[name]).max() / np.abs(wanted[name]).max()) for name in wanted)


@pytest.mark.parametrize("policy", sorted(TOLERANCE))
def test_every_policy_builds_is_met_and_computes_the_same(target: Target, work: Path, policy: str) -> None:
    ws = make_workspace(work, config=CONFIG)
    try:
        build_all(ws.root, target="tensorrt", overrides=[f"tensorrt.precision_policy={policy}"])
    except EnvironmentLacks as missing:
        assert policy == "bf16", missing
        pytest.skip(str(missing))
    for component in (ENCODER, HEAD):
        achieved = record_of(ws, target, policy, component)["achieved"]
        assert achieved["not_as_asked"] == {}
        assert relative_errors(ws, target, policy, component) < TOLERANCE[policy]
    assert relative_errors(ws, target, policy, ENCODER, voxels=1) < TOLERANCE[policy]
    assert relative_errors(ws, target, policy, ENCODER, voxels=200) < TOLERANCE[policy]


def test_fp16_differs_from_fp32_so_the_precision_is_real(target: Target, work: Path) -> None:
    ws = make_workspace(work, config=CONFIG)
    for policy in ("fp32", "fp16"):
        build_all(ws.root, target="tensorrt", overrides=[f"tensorrt.precision_policy={policy}"])
    assert relative_errors(ws, target, "fp16", HEAD) > 10 * relative_errors(ws, target, "fp32", HEAD)
    assert record_of(ws, target, "fp16", HEAD)["achieved"]["share_of_matrix_layers"].get("fp16", 0) == 1
    assert record_of(ws, target, "fp32", HEAD)["achieved"]["tf32_kernels"] == 0
    assert sum(record_of(ws, target, "fp16", HEAD)["achieved"]["share_of_time"].values()) == pytest.approx(1, abs=0.01)


@pytest.mark.usefixtures("lean_library")
def test_version_compatible_engines_load_only_where_host_code_is_allowed(target: Target, work: Path) -> None:
    ws = make_workspace(work, {ENCODER: encoder()}, CONFIG)
    build_all(
        ws.root, target="tensorrt", overrides=["tensorrt.precision_policy=fp32", "tensorrt.version_compatible=true"]
    )
    path = ws.artifact(record_of(ws, target, "fp32", ENCODER)["engine"])
    runtime = target.tensorrt.trt.Runtime(trt_run.logger(target))
    assert engines.deserialize(runtime, path.read_bytes(), version_compatible=False) is None
    assert relative_errors(ws, target, "fp32", ENCODER) < TOLERANCE["fp32"]


def test_keep_fp32_keeps_the_head(target: Target, work: Path) -> None:
    ws = make_workspace(work, config=CONFIG)
    build_all(
        ws.root,
        target="tensorrt",
        overrides=["tensorrt.precision_policy=fp16", f'components.{HEAD}.keep_fp32=["/head/.*"]'],
    )
    record = json.loads(ws.artifact(record_of(ws, target, "fp16", HEAD)["engine"] + ".json").read_text())
    precisions = {node: layer["precision"] for layer in record["layers"] for node in layer["nodes"]}
    assert {value for node, value in precisions.items() if node.startswith("/head/") and "Conv" in node} == {"fp32"}
    assert {value for node, value in precisions.items() if node.startswith("/backbone/") and "Conv" in node} == {"fp16"}


def test_a_second_build_is_up_to_date_and_a_forced_one_uses_the_cache(
    target: Target, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ws = make_workspace(tmp_path, config=SEARCHING)
    build_all(ws.root, target="tensorrt")
    cache = timing_cache.cache_path(ws.place("tensorrt"), target)
    assert len(timing_cache.read(cache)) > 1000
    cold = record_of(ws, target, "auto", HEAD)["build_seconds"]
    caplog.set_level("INFO")
    build_all(ws.root, target="tensorrt")
    assert "up to date" in caplog.text
    build_all(ws.root, target="tensorrt", force=True)
    assert record_of(ws, target, "auto", HEAD)["build_seconds"] < cold


def test_a_corrupt_timing_cache_is_rebuilt(target: Target, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ws = make_workspace(tmp_path, {HEAD: head()}, SEARCHING)
    cache = timing_cache.cache_path(ws.place("tensorrt"), target)
    cache.parent.make_folder()
    cache.unchecked.write_bytes(b"awml-deploy timing cache 1 sha256 0000\nrubbish")
    build_all(ws.root, target="tensorrt")
    assert "corrupt" in caplog.text
    assert len(timing_cache.read(cache)) > 1000


def test_an_unknown_operator_is_named(target: Target, work: Path) -> None:
    model = head()
    model.graph.node[3].op_type, model.graph.node[3].domain = "NoSuchOperator", "my.domain"
    model.opset_import.append(onnx.helper.make_opsetid("my.domain", 1))
    ws = make_workspace(work, {HEAD: model}, CONFIG)
    with pytest.raises(BuildError, match=f"node 3 '{model.graph.node[3].name}' .NoSuchOperator.") as caught:
        build_all(ws.root, target="tensorrt")
    assert caught.value.exit_code == 5
    assert ws.manifest().stages[f"build:{target.name('auto')}"].status == "failed"


def test_strip_weights_is_refused_where_this_tensorrt_lacks_it_and_small_where_not(target: Target, work: Path) -> None:
    ws = make_workspace(work, {HEAD: head()}, CONFIG)
    build_all(ws.root, target="tensorrt")
    whole = record_of(ws, target, "auto", HEAD)["bytes"]
    try:
        build_all(ws.root, target="tensorrt", overrides=["tensorrt.strip_weights=true"])
    except EnvironmentLacks as missing:
        assert "strip_weights" in str(missing)
    else:
        assert record_of(ws, target, "auto", HEAD)["bytes"] < whole


@pytest.mark.parametrize("policy", ["fp32", "fp16"])
def test_refit_gives_the_engine_new_weights(target: Target, work: Path, policy: str) -> None:
    models = {ENCODER: encoder(), HEAD: head()}
    ws = make_workspace(work, models, CONFIG)
    overrides = [f"tensorrt.precision_policy={policy}", "tensorrt.refittable=true"]
    build_all(ws.root, target="tensorrt", overrides=overrides)
    built = record_of(ws, target, policy, HEAD)["build_seconds"]
    export(ws, {name: with_other_weights(model) for name, model in models.items()}, CONFIG)
    assert relative_errors(ws, target, policy, HEAD) > 0.05
    refit_all(ws.root, target="tensorrt", overrides=overrides)
    for component in models:
        assert relative_errors(ws, target, policy, component) < TOLERANCE[policy]
        assert record_of(ws, target, policy, component)["refitted"]
    assert record_of(ws, target, policy, HEAD)["build_seconds"] < built


def test_refit_refuses_another_graph_and_an_engine_that_is_not_refittable(target: Target, work: Path) -> None:
    ws = make_workspace(work, {HEAD: head()}, CONFIG)
    build_all(ws.root, target="tensorrt")
    export(ws, {HEAD: with_other_weights(head())}, CONFIG)
    with pytest.raises(BuildError, match="not built refittable"):
        refit_all(ws.root, target="tensorrt")
    build_all(ws.root, target="tensorrt", overrides=["tensorrt.refittable=true"])
    other = head()
    other.graph.node[1].op_type = "Sigmoid"
    export(ws, {HEAD: other}, CONFIG)
    with pytest.raises(BuildError, match="the graph is not the one"):
        refit_all(ws.root, target="tensorrt", overrides=["tensorrt.refittable=true"])


def test_the_command_line_checks_and_shows_what_was_built(target: Target, work: Path) -> None:
    ws = make_workspace(work, {HEAD: head()}, CONFIG)
    build_all(ws.root, target="tensorrt", overrides=["tensorrt.precision_policy=fp16"])
    checked = CliRunner().invoke(cli, ["check", "--work", str(ws.root)])
    assert checked.exit_code == 0, checked.output
    engine = str(ws.path(record_of(ws, target, "fp16", HEAD)["engine"]))
    assert "share of time" in CliRunner().invoke(cli, ["inspect", engine]).output
    picture = work / "layers.svg"
    assert CliRunner().invoke(cli, ["inspect", engine, "--picture", str(picture)]).exit_code == 0
    assert picture.read_text(encoding="utf-8").count("<rect") > 10
    assert CliRunner().invoke(cli, ["doctor"]).exit_code == 0


def test_killed_in_mid_build_the_old_engines_stay(target: Target, work: Path) -> None:
    ws = make_workspace(work, {HEAD: head()}, CONFIG)
    build_all(ws.root, target="tensorrt")
    command = [
        sys.executable,
        "-c",
        "from trt_builder.cli import cli; cli()",
        "build",
        "--work",
        str(ws.root),
        "--force",
    ]
    for seconds in (3.0, 6.0):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        time.sleep(seconds)
        process.kill()
        process.communicate(timeout=60)
        for relative, artifact in ws.manifest().artifacts.items():
            assert sha256_of_file(ws.path(relative)) == artifact.sha256
    build_all(ws.root, target="tensorrt")
    ws.artifact(record_of(ws, target, "auto", HEAD)["engine"])
