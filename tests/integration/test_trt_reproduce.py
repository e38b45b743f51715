"""`trt_builder reproduce` with TensorRT for RTX: a build that fails, and nodes that bisection found, as folders that
Polygraphy's own command line takes."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from shared.polygraphy_json import read_results
from shared.workspace import Workspace
from tests.support import trt_rtx
from tests.support.determinant import with_determinant
from tests.support.trt_rtx import trt_builder
from tests.support.trt_workspaces import HEAD, head, make_workspace


def run_polygraphy(folder: Path, scratch: Path) -> subprocess.CompletedProcess[str]:
    """The command in a case's README, in the environment that has TensorRT for RTX."""
    found = importlib.util.find_spec("polygraphy")
    if found is None or not found.submodule_search_locations:
        pytest.skip("Polygraphy is not installed here; run: make setup-dev")
    # That environment has none; the package is pure Python.
    (scratch / "lib").mkdir()
    (scratch / "lib" / "polygraphy").symlink_to(found.submodule_search_locations[0])
    line = next(line for line in (folder / "README.md").read_text().splitlines() if " polygraphy run " in line)
    variable, _, *arguments = shlex.split(line)
    name, value = variable.split("=")
    return subprocess.run(
        [trt_rtx.python(), "-c", "import sys; from polygraphy.tools import main; sys.exit(main())", *arguments],
        capture_output=True, text=True, check=False, cwd=folder,
        env={**os.environ, name: value, "PYTHONPATH": str(scratch / "lib"), "POLYGRAPHY_AUTOINSTALL_DEPS": "0"},
    )  # fmt: skip


def test_the_one_node_that_fails_is_left_and_polygraphy_fails_alike(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "work", {HEAD: with_determinant()})
    answer = trt_builder(
        "reproduce", "--work", ws.root, "--target", "rtx", "--out", tmp_path / "issue",
        "--set", "tensorrt.precision_policy=fp16",
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    folder = tmp_path / "issue" / HEAD
    assert answer.stdout.startswith(f"{folder}: 1 of {len(with_determinant().graph.node)} nodes fail to build")
    model = onnx.load(folder / "model.onnx")
    assert [node.op_type for node in model.graph.node if node.op_type != "Cast"] == ["Det"]

    # Inputs and expected outputs belong together.
    (given,) = json.loads((folder / "inputs.json").read_text())
    ((expected,),) = read_results(folder / "expected.json").values()
    assert list(given) == ["before"]
    values = np.frombuffer((folder / "0.bin").read_bytes(), np.float32)
    images = values.reshape(*expected["det"].shape, *[int(np.sqrt(values.size / expected["det"].size))] * 2)
    np.testing.assert_allclose(expected["det"], np.linalg.det(images), rtol=1e-2)

    theirs = run_polygraphy(folder, tmp_path)
    assert theirs.returncode == 1
    assert "/odd/Det" in theirs.stdout
    assert "Could not parse ONNX correctly" in theirs.stderr


def test_what_builds_and_what_nobody_bisected_is_said(tmp_path: Path) -> None:
    trt_rtx.python()
    ws = make_workspace(tmp_path / "work", {HEAD: head()})
    common = ("--work", ws.root, "--target", "rtx", "--out", tmp_path / "issue")
    for arguments, said in (((), "it builds"), (("--bisected",), "verifier bisect")):
        answer = trt_builder("reproduce", *common, *arguments)
        assert answer.returncode == 3
        assert said in answer.stderr
    assert not (tmp_path / "issue").exists()


def test_nodes_that_bisection_found_go_with_their_real_inputs(tmp_path: Path) -> None:
    trt_rtx.python()
    ws = make_workspace(tmp_path / "work", {HEAD: head()})
    found = _as_bisect_leaves_it(ws)
    answer = trt_builder("reproduce", "--work", ws.root, "--target", "rtx", "--out", tmp_path / "issue", "--bisected")
    assert answer.returncode == 0, answer.stderr
    folder = tmp_path / "issue" / f"{HEAD}-0"
    assert onnx.load(folder / "model.onnx") == found
    ((expected,),) = read_results(folder / "expected.json").values()
    np.testing.assert_array_equal(expected["y"], np.full((1, 2), 7.0, np.float32))
    assert "other results than ONNX Runtime gives: /odd/Relu" in (folder / "README.md").read_text()

    with ws.stage("export", tool="exporter") as stage:
        stage.bytes_artifact(f"onnx/{HEAD}.onnx", "onnx", with_determinant().SerializeToString())
    answer = trt_builder("reproduce", "--work", ws.root, "--target", "rtx", "--out", tmp_path / "old", "--bisected")
    assert answer.returncode == 3 and "no nodes were found" in answer.stderr, answer.stderr
    assert "another version of" in answer.stderr and not (tmp_path / "old").exists()


def _as_bisect_leaves_it(ws: Workspace) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name="/odd/Relu")], "w", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    graph = f"onnx/{HEAD}.onnx"
    with ws.stage(f"bisect:{HEAD}", tool="verifier", inputs={graph: ws.input_hash(graph)}) as stage:
        stage.bytes_artifact(f"bisect/{HEAD}.0.onnx", "bisect", model.SerializeToString())
        for kind, name, value in (("inputs", "x", 5.0), ("expected", "y", 7.0)):
            with stage.artifact(f"bisect/{HEAD}.0.{kind}.npz", "bisect") as path, path.open("xb") as file:
                np.savez(file, **{name: np.full((1, 2), value, np.float32)})
    return model
