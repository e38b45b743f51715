"""trt_builder probe: what it refuses before it needs a GPU."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from click.testing import CliRunner
from onnx import TensorProto, helper

from shared.errors import BuildError, InputError, UsageError
from trt_builder import probe_server
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


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    files = _files(tmp_path, x=np.ones((2, 4), np.float32))
    for leave_out in ("--onnx", "--inputs", "--outputs"):
        at = files.index(leave_out)
        code, said = _refused(*files[:at], *files[at + 2 :])
        assert code == UsageError.exit_code and f"{leave_out} is missing" in said
    code, said = _refused("--serve", *files[:2])
    assert code == UsageError.exit_code and "line by line" in said


def test_a_line_each_is_answered(tmp_path: Path) -> None:
    asked: list[tuple[Path, ...]] = []

    def run(*files: Path) -> None:
        asked.append(files)
        if files[0].name == "wrong":
            raise BuildError("no kernel", where="part", hint="another policy")

    questions = [
        '{"model": "/a", "inputs": "/b", "outputs": "/c"}\n', '{"model": "/wrong", "inputs": "/b", "outputs": "/c"}\n',
        "hello\n", '{"model": "/a"}\n', '{"model": "/a", "inputs": 1, "outputs": "/c"}\n', "[]\n",
    ]  # fmt: skip
    answers = io.StringIO()
    probe_server.serve(run, questions, answers)
    said = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert asked == [(Path("/a"), Path("/b"), Path("/c")), (Path("/wrong"), Path("/b"), Path("/c"))]
    assert [answer["exit_code"] for answer in said] == [0, BuildError.exit_code, *[InputError.exit_code] * 4]
    assert said[0]["message"] == "" and "no kernel" in said[1]["message"] and "another policy" in said[1]["message"]
    assert all("standard input" in answer["message"] for answer in said[2:])


def test_serving_answers_alone_are_in_the_standard_output(tmp_path: Path) -> None:
    files = dict(zip(("model", "inputs", "outputs"), _files(tmp_path, z=np.ones(2, np.float32))[1::2], strict=True))
    code = (
        "import os, sys; from pathlib import Path; from trt_builder import probe\n"
        "def run(model, inputs, outputs, **options):\n"
        "    print('noise'); os.write(1, b'more'); outputs.write_text(str(options))\n"
        "probe.probe = run\n"
        "from trt_builder.cli import cli; cli()"
    )
    command = [sys.executable, "-c", code, "probe", "--serve", "--precision-policy", "fp16", "--no-libraries"]
    question = json.dumps(files) + "\n"
    done = subprocess.run(command, input=2 * question, capture_output=True, text=True, check=True)
    assert [json.loads(line) for line in done.stdout.splitlines()] == 2 * [{"exit_code": 0, "message": ""}]
    assert done.stderr.count("noise") == done.stderr.count("more") == 2
    assert "'policy': 'fp16', 'libraries': False" in Path(files["outputs"]).read_text()
