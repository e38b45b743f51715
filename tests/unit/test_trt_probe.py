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


def _refused(*arguments: str) -> tuple[int, str]:
    answer = CliRunner().invoke(cli, ["probe", *arguments])
    return answer.exit_code, answer.output


def test_inputs_that_are_not_the_graphs_are_refused(tmp_path: Path) -> None:
    code, said = _refused(*_files(tmp_path, z=np.ones((2, 4), np.float32)))
    assert code == InputError.exit_code
    assert "holds ['z'], the graph takes ['x']" in said


def test_inputs_that_are_no_arrays_are_refused(tmp_path: Path) -> None:
    arguments = _files(tmp_path)
    (tmp_path / "in.npz").write_bytes(b"no archive")
    code, said = _refused(*arguments)
    assert code == InputError.exit_code
    assert "can't be read as arrays" in said


def test_an_unknown_policy_is_refused(tmp_path: Path) -> None:
    code, said = _refused(*_files(tmp_path, x=np.ones((2, 4), np.float32)), "--precision-policy", "fp12")
    assert code == UsageError.exit_code
    assert "no policy 'fp12'" in said and "fp16" in said
