"""trt_builder probe on a GPU, and verifier bisect with it: TensorRT is asked about windows of a graph."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx.reference import ReferenceEvaluator

from shared.errors import EnvironmentLacks
from shared.work_path import WorkPath
from tests.support.deep_graph import LAYERS, deep_graph, inputs
from tests.support.planted import scale_weights
from trt_builder import target as targets
from trt_builder.cli import cli

pytestmark = pytest.mark.gpu

# cuBLAS and cuDNN are not everywhere installed.
BUILD = ("--target", "tensorrt", "--no-libraries")


@pytest.fixture(autouse=True)
def _tensorrt() -> None:
    try:
        targets.find("tensorrt")
    except EnvironmentLacks as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize(("policy", "tolerance"), [("fp32", 1e-4), ("fp16", 2e-2)])
def test_outputs_are_those_of_the_graph(tmp_path: Path, policy: str, tolerance: float) -> None:
    model, given = deep_graph(), inputs()
    onnx.save(model, tmp_path / "part.onnx")
    np.savez(tmp_path / "in.npz", **given)  # type: ignore[arg-type]
    files = ["--onnx", str(tmp_path / "part.onnx"), "--inputs", str(tmp_path / "in.npz")]
    options = ["--outputs", str(tmp_path / "out.npz"), "--precision-policy", policy, *BUILD]
    CliRunner().invoke(cli, ["probe", *files, *options], catch_exceptions=False)
    expected = ReferenceEvaluator(model).run(None, given)[0]
    with np.load(tmp_path / "out.npz") as archive:
        np.testing.assert_allclose(archive["y"], expected, atol=tolerance)


def test_bisection_finds_the_node(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed here; it is the reference")
    from shared.journal import Journal
    from shared.onnx_windows import Graph
    from verifier.bisect.recipe import find_nodes
    from verifier.bisect.runners import ServerRunner
    from verifier.bisect.windows import Case

    wrong = deep_graph()
    scale_weights(wrong, LAYERS[7], 1.1)
    code = "from trt_builder.cli import cli; cli()"
    runner = ServerRunner(
        shlex.join([sys.executable, "-c", code, "probe", "--serve", *BUILD, "--timings", str(tmp_path)])
    )
    case = Case(Graph(wrong), Graph(deep_graph()), [inputs()], runner, 35.0)
    found = find_nodes(case, Journal.open(WorkPath(tmp_path, "journal"), "f", False), "deep")
    assert [window["nodes"] for window in found["responsible"]] == [[LAYERS[7]]]
