"""trt_builder probe: what it refuses before it needs a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from click.testing import CliRunner
from onnx import TensorProto, helper

from shared.errors import InputError, UsageError
from trt_builder.cli import cli


def _files(folder: Path, **arrays: np.ndarray) -> list[str]:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "part", [value], [result])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), folder / "part.onnx")
    np.savez(folder / "in.npz", **arrays)  # type: ignore[arg-type]
    return ["--onnx", str(folder / "part.onnx"), "--inputs", str(folder / "in.npz"), "--outputs", str(folder / "o.npz")]


def _error(*arguments: str) -> BaseException | None:
    return CliRunner().invoke(cli, ["probe", *arguments], standalone_mode=False).exception


def test_inputs_that_are_not_the_graphs_are_refused(tmp_path: Path) -> None:
    error = _error(*_files(tmp_path, z=np.ones((2, 4), np.float32)))
    assert isinstance(error, InputError)
    assert "holds ['z'], the graph takes ['x']" in str(error)


def test_inputs_that_are_no_arrays_are_refused(tmp_path: Path) -> None:
    arguments = _files(tmp_path)
    (tmp_path / "in.npz").write_bytes(b"no archive")
    assert isinstance(_error(*arguments), InputError)


def test_an_unknown_policy_is_refused(tmp_path: Path) -> None:
    error = _error(*_files(tmp_path, x=np.ones((2, 4), np.float32)), "--precision-policy", "fp12")
    assert isinstance(error, UsageError)
    assert "fp16" in str(error)
