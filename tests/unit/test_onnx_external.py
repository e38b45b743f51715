"""Weights beside an ONNX file are known, or are not loaded: a file that no hash covers says nothing in a result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from shared.errors import ManifestError, ModelLoadError
from shared.onnx_external import external_files
from shared.workspace import Workspace

MODEL, WEIGHTS = "onnx/a.onnx", "onnx/a.weights"


def tensor(location: str | None, name: str = "w") -> TensorProto:
    value = numpy_helper.from_array(np.ones((4, 4), np.float32), name)
    if location is not None:
        value.ClearField("raw_data")
        value.data_location = TensorProto.EXTERNAL
        for key, text in (("location", location), ("offset", "0"), ("length", "64")):
            entry = value.external_data.add()
            entry.key, entry.value = key, text
    return value


def model(*initializers: TensorProto, nodes: tuple[onnx.NodeProto, ...] = ()) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"]), *nodes], "g", [x], [y], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def in_an_attribute() -> onnx.ModelProto:
    return model(nodes=(helper.make_node("Constant", [], ["w"], value=tensor("attribute.bin")),))


def in_a_graph_of_a_node() -> onnx.ModelProto:
    inner = helper.make_graph([helper.make_node("Identity", ["v"], ["o"])], "then", [], [], [tensor("inner.bin", "v")])
    return model(nodes=(helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner),))


def in_a_function() -> onnx.ModelProto:
    whole = model(tensor(None))
    constant = helper.make_node("Constant", [], ["o"], value=tensor("function.bin"))
    whole.functions.append(helper.make_function("custom", "F", [], ["o"], [constant], [helper.make_opsetid("", 17)]))
    return whole


@pytest.mark.parametrize(
    ("made", "files"),
    [
        (model(tensor(None)), []),
        (model(tensor("a.weights")), ["a.weights"]),
        (model(tensor("b.bin"), tensor("a.bin", "v"), tensor("b.bin", "u")), ["a.bin", "b.bin"]),
        (in_an_attribute(), ["attribute.bin"]),
        (in_a_graph_of_a_node(), ["inner.bin"]),
        (in_a_function(), ["function.bin"]),
    ],
    ids=["whole", "an initializer", "several", "an attribute", "a graph of a node", "a function"],
)
def test_the_files_that_a_model_names_are_found_wherever_they_are_named(
    tmp_path: Path, made: onnx.ModelProto, files: list[str]
) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(made.SerializeToString())
    assert external_files(path) == files


@pytest.mark.parametrize(
    "content", [b"", b"\x3a\xff\xff\xff\xff\x0f", b"\x3a", b"no protobuf at all", b"\x3a\x02\x3a\x05"]
)
def test_what_is_no_whole_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelLoadError, match="not a whole ONNX file"):
        external_files(path)


def workspace(root: Path, location: str, *, recorded: bool) -> Workspace:
    ws = Workspace.create(root)
    with ws.stage("export", tool="exporter") as stage:
        with stage.artifact(MODEL, kind="onnx") as path:
            path.write_bytes(model(tensor(location)).SerializeToString())
        if recorded:
            with stage.artifact(WEIGHTS, kind="weights") as path:
                path.write_bytes(np.ones(16, np.float32).tobytes())
    return ws


def test_weights_that_are_artifacts_are_checked_with_the_model(tmp_path: Path) -> None:
    ws = workspace(tmp_path, "a.weights", recorded=True)
    assert ws.onnx(MODEL) == ws.artifact(MODEL)
    (tmp_path / WEIGHTS).write_bytes(np.zeros(16, np.float32).tobytes())
    with pytest.raises(ManifestError, match="differs from its hash"):
        ws.onnx(MODEL)


@pytest.mark.parametrize("location", ["a.weights", "../../secret", "/etc/passwd", "sub/../a.weights"])
def test_weights_that_are_no_artifacts_are_not_loaded(tmp_path: Path, location: str) -> None:
    ws = workspace(tmp_path, location, recorded=location.startswith("sub"))
    (tmp_path / WEIGHTS).write_bytes(np.ones(16, np.float32).tobytes())
    with pytest.raises(ModelLoadError, match="which is not in the manifest; not loaded"):
        ws.onnx(MODEL)
