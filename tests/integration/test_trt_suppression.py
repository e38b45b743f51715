"""Suppression in the graph, on a TensorRT that has neither operator: one line that says where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import suppression_graphs, trt_rtx
from tests.support.trt_rtx import trt_builder
from tests.support.trt_workspaces import make_workspace


@pytest.mark.parametrize(
    ("graph", "operator", "where"),
    [
        (suppression_graphs.standard, "NonMaxSuppression", "TensorRT 8.6 and newer"),
        (suppression_graphs.plugin, "EfficientNMS_TRT", "TensorRT 8.6 to 10.11"),
    ],
)
def test_tensorrt_for_rtx_refuses_with_one_line(tmp_path: Path, graph: Any, operator: str, where: str) -> None:
    trt_rtx.python()
    ws = make_workspace(tmp_path, {"yolox": graph()})
    answer = trt_builder("build", "--work", ws.root, "--target", "rtx", "--set", "tensorrt.precision_policy=fp32")
    assert answer.returncode == 4
    assert answer.stderr.count("\n") == 1, answer.stderr
    assert "TensorRT for RTX 1." in answer.stderr
    assert f"has no operator {operator}. {where}" in answer.stderr
