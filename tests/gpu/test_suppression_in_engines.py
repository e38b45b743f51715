"""Suppression in the graph on a real GPU: ONNX's operator, and TensorRT's own plugin where this version has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.models.yolox.nms import suppress_by_class
from shared.errors import EnvironmentLacks
from tests.support import suppression_graphs as graphs
from tests.support import trt_run
from tests.support.trt_workspaces import make_workspace
from trt_builder.build import build_all
from trt_builder.target import Target

pytestmark = pytest.mark.gpu


def answer(target: Target, work: Path, model: Any, scores: Any) -> dict[str, Any]:
    """What an engine of the graph gives for the boxes."""
    ws = make_workspace(work, {"yolox": model}, {"tensorrt": {"tactic_sources": []}})
    build_all(ws.root, target="tensorrt", overrides=["tensorrt.precision_policy=fp32"])
    record = ws.manifest().results["engines"][f"{target.name('fp32')}/yolox"]
    runtime, engine = trt_run.load(target, ws.artifact(record["engine"]))
    got = trt_run.run(target, engine, {"corners": graphs.boxes()[0][None], "scores": scores})
    del engine, runtime
    return got


def expected() -> np.ndarray[Any, Any]:
    """Rows of the boxes that stay, by falling score."""
    corners, scores, labels = graphs.boxes()
    passed = np.flatnonzero(scores > graphs.SCORE)
    return passed[suppress_by_class(corners[passed], scores[passed], labels[passed], graphs.IOU)]


def by_class() -> np.ndarray[Any, Any]:
    """Scores (N, C): a box has one of its own class, and zero for the others."""
    _, scores, labels = graphs.boxes()
    table = np.zeros((graphs.BOXES, graphs.CLASSES), np.float32)
    table[np.arange(graphs.BOXES), labels] = scores
    return table


def test_onnx_own_operator(target: Target, tmp_path: Path) -> None:
    kept = answer(target, tmp_path, graphs.standard(), by_class().T[None])["kept"][0]
    assert sorted(np.flatnonzero(kept.max(axis=0))) == sorted(expected())


def test_tensorrts_plugin(target: Target, tmp_path: Path) -> None:
    try:
        got = answer(target, tmp_path, graphs.plugin(), by_class()[None])
    except EnvironmentLacks as missing:
        pytest.skip(str(missing))
    corners, scores, labels = graphs.boxes()
    rows = expected()[: graphs.KEPT]
    count = int(got["num_detections"][0, 0])
    assert count == len(rows)
    np.testing.assert_allclose(got["detection_scores"][0, :count], scores[rows], atol=1e-6)
    np.testing.assert_allclose(got["detection_boxes"][0, :count], corners[rows], atol=1e-4)
    np.testing.assert_array_equal(got["detection_classes"][0, :count], labels[rows])
