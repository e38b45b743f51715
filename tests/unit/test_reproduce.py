"""The smallest part that fails, when two failures are one, and the commands for NVIDIA's own programs."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("onnx")

import onnx
from onnx import TensorProto, helper

from trt_builder.compat import TensorRT
from trt_builder.policies import POLICIES
from trt_builder.replay import Replay
from trt_builder.trial import Failure, Options, Trial, smallest


@given(st.integers(1, 300), st.data())
def test_the_smallest_window_around_what_fails(count: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, count - 1))
    last = data.draw(st.integers(first + 1, count))
    asked = []

    def fails(begin: int, end: int) -> bool:
        asked.append((begin, end))
        return begin <= first and last <= end

    assert smallest(count, fails) == range(first, last)
    assert len(asked) <= 2 * count.bit_length()


@given(st.integers(1, 60), st.sets(st.tuples(st.integers(0, 60), st.integers(0, 60))))
def test_whatever_fails_what_is_returned_was_seen_to_fail(count: int, failing: set[tuple[int, int]]) -> None:
    failing = failing | {(0, count)}
    found = smallest(count, lambda first, last: (first, last) in failing)
    assert (found.start, found.stop) in failing


def test_one_cause_has_one_message_but_for_names_and_numbers() -> None:
    whole = Failure("node 31 '/head/Det' (Det) can't be parsed: false")
    assert whole.is_like(Failure("node 0 '/head/Det' (Det) can't be parsed: false"))
    assert not whole.is_like(Failure("node 0 '/head/Conv' (Conv) can't be parsed: false"))
    assert not whole.is_like(None)


def test_a_crash_of_tensorrt_is_a_failure_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A TensorRT that dies when it is loaded: in the process of the trial, not in ours."""
    (tmp_path / "tensorrt_rtx.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(tmp_path)  # what a spawned process gets
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model)
    with Trial(Options("rtx", "fp32", (), 3, True)) as trial:
        # The second has a process of its own again.
        for _ in range(2):
            found = trial.failure(model, {"x": np.zeros(2, np.float32)})
            assert found is not None and "-11" in found.message


def tensorrt(flavor: Any, version: str, *, weakly_typed: bool) -> TensorRT:
    flags = SimpleNamespace(FP16=1) if weakly_typed else SimpleNamespace()
    return TensorRT(flavor, SimpleNamespace(BuilderFlag=flags), version)


OLD = tensorrt("tensorrt", "8.6.0", weakly_typed=True)
NEW = tensorrt("tensorrt", "11.4.0", weakly_typed=False)
RTX = tensorrt("rtx", "1.7.1", weakly_typed=False)


@pytest.mark.parametrize(
    ("installed", "policy", "keep", "quantized", "trtexec", "polygraphy"),
    [
        (OLD, "fp32", [], False, "--noTF32", ""),
        (OLD, "fp32_tf32", [], False, "", "--tf32"),
        (OLD, "fp16", [], False, "--fp16", "--fp16 --tf32"),
        (
            OLD, "fp16", ["/a"], False,
            "--fp16 --noTF32 --precisionConstraints=obey --layerPrecisions=/a:fp32 --layerOutputTypes=/a:fp32",
            "--fp16 --precision-constraints obey --layer-precisions /a:float32",
        ),
        (OLD, "int8", [], True, "--fp16 --int8", "--fp16 --int8 --tf32"),
        (OLD, "strongly_typed", [], False, "--stronglyTyped", "--strongly-typed"),
        (NEW, "fp16", [], False, "--stronglyTyped", "--strongly-typed"),
        (RTX, "fp16", [], False, "", ""),
    ],
)  # fmt: skip
def test_commands_ask_for_the_same_precision(
    installed: TensorRT, policy: str, keep: list[str], quantized: bool, trtexec: str, polygraphy: str
) -> None:
    replay = Replay(installed, POLICIES[policy], keep, quantized, True, 3, ["x", "voxels/n"])
    rtx = installed.flavor == "rtx"
    level = [] if rtx else ["--builderOptimizationLevel=3"]
    assert replay.trtexec().split() == [
        "tensorrt_rtx" if rtx else "trtexec", "--onnx=model.onnx", *trtexec.split(), *level,
        "--loadInputs=x:0.bin,voxels/n:1.bin", "--verbose",
    ]  # fmt: skip
    level = [] if rtx else ["--builder-optimization-level", "3"]
    assert replay.polygraphy(expected=True).split() == [
        *(["POLYGRAPHY_USE_TENSORRT_RTX=1"] if rtx else []), "polygraphy", "run", "model.onnx", "--trt",
        *polygraphy.split(), *level, "--load-inputs", "inputs.json", "--load-outputs", "expected.json",
    ]  # fmt: skip
    assert "--load-outputs" not in replay.polygraphy(expected=False)


def test_without_libraries_the_commands_have_none_either() -> None:
    replay = Replay(OLD, POLICIES["fp32"], [], False, False, 3, [])
    assert "--tacticSources=-CUBLAS,-CUBLAS_LT,-CUDNN" in replay.trtexec()
    assert "--tactic-sources --load-inputs" in replay.polygraphy(expected=False)
