"""`trt_builder reproduce` where TensorRT has a GPU: the part that it can't build, found by building."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tests.support.determinant import with_determinant
from tests.support.trt_workspaces import HEAD, make_workspace
from trt_builder.reproduce import reproduce

pytestmark = pytest.mark.gpu


@pytest.mark.usefixtures("target")
def test_the_one_node_that_fails_is_left(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path / "work", {HEAD: with_determinant()})
    overrides = ["tensorrt.precision_policy=fp16", "tensorrt.tactic_sources=[]"]
    text = reproduce(
        ws.root, tmp_path / "issue", component=None, bisected=False, target="tensorrt", overrides=overrides
    )
    folder = tmp_path / "issue" / HEAD
    assert text.startswith(f"{folder}: 1 of ")
    assert [node.op_type for node in onnx.load(folder / "model.onnx").graph.node if node.op_type != "Cast"] == ["Det"]
    assert (folder / "expected.json").is_file()
    readme = (folder / "README.md").read_text()
    assert "trtexec --onnx=model.onnx" in readme and "polygraphy run model.onnx --trt" in readme
