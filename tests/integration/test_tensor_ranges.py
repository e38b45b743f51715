"""`runtime ranges` records what tensors reach on samples, and that keeps nodes out of FP16 in the builder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
from onnx.reference import ReferenceEvaluator

from runtime.backends import Tensors
from runtime.backends import onnx as backend
from runtime.devices import Device
from runtime.model import open_model
from runtime.models.centerpoint.parameters import HEAD
from runtime.models.centerpoint.pipeline import build
from runtime.ranges import record_ranges
from shared.cast_graph import lower
from shared.workspace import Workspace
from tests.support import tiny_centerpoint as tiny
from tests.support.planted import planted, scale_weights
from trt_builder.build_plan import read_config
from trt_builder.jobs import make_jobs

COUNTS = [500, 0, 700]


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return tiny.make_workspace(tmp_path / "work", tiny.write_frames(tmp_path / "frames", COUNTS))


def recorded(ws: Workspace, component: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(ws.artifact(f"ranges/{component}.json").read_text())
    return value


class Keeping:
    """A session that keeps the inputs of the head."""

    def __init__(self, ws: Workspace) -> None:
        spec = ws.spec()
        files = {component.name: ws.artifact(component.onnx) for component in spec.components}
        self._session = backend.load(files, spec, Device("cpu"), None)
        self.settings = self._session.settings
        self.kept: list[dict[str, np.ndarray[Any, Any]]] = []

    def run(self, component: str, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        if component == HEAD:
            self.kept.append({name: array.copy() for name, array in inputs.items()})
        return self._session.run(component, inputs)


def test_they_are_the_largest_values_of_every_tensor_over_the_samples(ws: Workspace) -> None:
    record_ranges(ws.root, num_samples=3)
    keeping = Keeping(ws)
    pipeline = build(ws.spec(), keeping)
    dataset = open_model(ws.root, "onnx", "cpu", None, None).dataset
    for index in range(len(COUNTS)):
        pipeline.infer(pipeline.read(dataset.sample(index)).data)
    model = onnx.load(str(ws.path(ws.spec().component(HEAD).onnx)))
    names = [name for node in model.graph.node for name in node.output]
    expected = {name: max(_reached(model, name, inputs) for inputs in keeping.kept) for name in names[:4]}
    largest = recorded(ws, HEAD)["largest"]
    assert set(names) <= set(largest)
    assert {name: largest[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert recorded(ws, HEAD)["samples"] == 3
    again = record_ranges(ws.root, num_samples=3)
    assert again == "ranges: up to date"
    assert again.data["components"][HEAD] == recorded(ws, HEAD)


def _reached(model: Any, name: str, inputs: dict[str, np.ndarray[Any, Any]]) -> float:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.output[:]
    changed.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return float(np.abs(ReferenceEvaluator(changed).run(None, inputs)[0]).max())


def test_a_node_beyond_fp16_on_samples_stays_in_fp32_in_the_derived_graph(ws: Workspace, tmp_path: Path) -> None:
    good = onnx.load(str(ws.path(ws.spec().component(HEAD).onnx)))
    large = good.graph.node[-1].name
    # Weights that fit FP16, and products that don't: only real values tell.
    ws = planted(ws, tmp_path / "large", component=HEAD, change=lambda model: scale_weights(model, large, 2e5))
    model = onnx.load(str(ws.path(ws.spec().component(HEAD).onnx)))
    assert max(np.abs(onnx.numpy_helper.to_array(tensor)).max() for tensor in model.graph.initializer) < 65504
    record_ranges(ws.root)
    assert max(recorded(ws, HEAD)["largest"].values()) > 65504

    job = next(
        job for job in make_jobs(ws, read_config(ws, ["tensorrt.precision_policy=fp16"])) if job.component == HEAD
    )
    assert "on recorded samples" in job.policy.keep[large]
    assert job.policy.expected[large] == "fp32"
    lowered, report = lower(model, "fp16", keep=job.policy.keep)
    assert large in report.kept
    weights = {tensor.name: tensor.data_type for tensor in lowered.graph.initializer}
    node = next(node for node in lowered.graph.node if node.name == large)
    assert weights[node.input[1]] == onnx.TensorProto.FLOAT
    assert report.low > 3
