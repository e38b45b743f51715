"""A YOLOX-ELAN in INT8, from its checkpoint to the ONNX file: skip connections and concatenations on the way."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import yaml

pytest.importorskip("modelopt")

import onnx

from exporter.cli import cli
from shared.qdq_lint import float_sums, lint, quantized_nodes
from shared.workspace import Workspace
from tests.support import tiny_yolox as tiny
from tests.support.exporting import save_checkpoint

pytestmark = pytest.mark.exporter

OUTPUTS = r"bbox_head\.multi_level_conv_(cls|reg|obj)\."


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace, quantized and exported."""
    root = tmp_path_factory.mktemp("project")
    save_checkpoint(tiny.built(root, seed=None)[0], root / "model.pth")
    tiny.write_images(root / "images")
    tiny.write_images(root / "more", ((96, 64), (64, 96), (80, 80), (90, 60)))
    config = {
        "task_type": "detection2d",
        "model": {"type": "yolox", "config": str(root / "tiny_yolox.py"), "checkpoint": "model.pth"},
        "data": {"format": "folder", "root": "images"},
        "export": {"mode": "onnx"},
        "verification": {"num_verify_samples": 2},
        "quantization": {
            "enabled": True,
            "calibration": {"num_batches": 4, "method": "max", "data": {"format": "folder", "root": "more"}},
            "sensitive_layers": [OUTPUTS],
        },
    }
    (root / "deploy.yaml").write_text(yaml.safe_dump(config))
    handlers = logging.getLogger().handlers[:]
    for command in (["quantize", "ptq"], ["export"]):
        with pytest.raises(SystemExit) as stopped:
            cli.main([*command, "--config", str(root / "deploy.yaml"), "--work", str(root / "work")])
        logging.getLogger().handlers[:] = handlers  # they write to what pytest closes
        assert not stopped.value.code
    return root / "work"


def test_all_but_the_head_s_outputs_are_quantized_and_every_pair_stands_right(made: Path) -> None:
    model = onnx.load(str(Workspace.open(made).artifact("onnx/yolox.onnx")))
    inside, outside = quantized_nodes(model)
    assert len(outside) == 9
    assert all("multi_level_conv_" in name for name in outside)
    assert len(inside) > 50
    assert lint(model, [OUTPUTS]) == []
    assert float_sums(model) == []


def test_skip_connections_are_quantized_with_the_scale_of_what_they_skip(made: Path) -> None:
    model = onnx.load(str(Workspace.open(made).artifact("onnx/yolox.onnx")))
    nodes = {node.name: node for node in model.graph.node}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    constants |= {node.output[0]: node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"}

    def scale(node: str) -> float:
        return float(onnx.numpy_helper.to_array(constants[nodes[node].input[1]]))

    skips = [name for name in nodes if name.endswith("/skip_quantizer/QuantizeLinear")]
    assert len(skips) == 3  # as many residual bottlenecks has the small backbone
    for skip in skips:
        block = skip.split("/skip/")[0]
        assert scale(skip) == scale(f"{block}/conv1/conv/input_quantizer/QuantizeLinear")


def test_what_is_exported_computes_what_the_quantized_model_computes(made: Path) -> None:
    agreement = Workspace.open(made).manifest().results["export"]["agreement"]["yolox"]
    assert all(entry["largest_relative"] < 0.05 for entry in agreement["onnx"])
    assert all(entry["largest_relative"] < 1e-5 for entry in agreement["program"])
