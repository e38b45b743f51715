"""Every opset that a config may ask for is what the file has, from either exporter, and computes what PyTorch does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from exporter.component import Component
from shared.spec import TensorSpec
from tests.support import tiny_yolox as tiny
from tests.support.image_export import component_of

pytestmark = pytest.mark.exporter

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")


class Pooled(torch.nn.Module):
    """The mean and the largest of each channel, which a pillar's encoder takes of its points."""

    def forward(self, features: Any) -> Any:
        return torch.nn.functional.adaptive_avg_pool2d(features, 1) + features.amax((2, 3), keepdim=True)


def part() -> Component:
    """A part with the kinds of layers that our networks have: the operators whose form changes between opsets."""
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU6(),
        torch.nn.MaxPool2d(2),
        torch.nn.ConvTranspose2d(4, 4, 2, stride=2),
        torch.nn.Upsample(scale_factor=2),
        torch.nn.GELU(),
        Pooled(),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 5),
        torch.nn.Softmax(1),
    )
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return Component(
        name="part",
        module=layers.eval(),
        inputs=(TensorSpec(name="images", dtype="float32", shape=["batch_size", 3, 8, 8]),),
        outputs=(TensorSpec(name="output", dtype="float32", shape=["batch_size", 5]),),
        inputs_of=lambda sizes: (images[: sizes["batch_size"]],),
        trace_sizes={"batch_size": 2},
        check_sizes=({"batch_size": 1}, {"batch_size": 3}),
        deployed_sizes={"batch_size": 1},
    )


def exported(component: Component, path: Path, exporter: Any, opset: int) -> Any:
    from exporter.artifacts.checks import check_onnx
    from exporter.artifacts.onnx_export import export_onnx

    export_onnx(component, path, exporter=exporter, opset_version=opset)
    check_onnx(path, component, opset)
    model = onnx.load(path)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == opset
    return model


@pytest.mark.parametrize("opset", range(16, 23))
@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_every_opset(tmp_path: Path, exporter: str, opset: int) -> None:
    model = exported(part(), tmp_path / "part.onnx", exporter, opset)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch_size"


def test_a_network(tmp_path: Path) -> None:
    from exporter.models.yolox import adapter as yolox

    component = component_of(tmp_path, yolox, tiny.built(tmp_path, {"batch_size": "dynamic"}))
    exported(component, tmp_path / "yolox.onnx", "torchscript", 22)


@pytest.mark.parametrize("opset", [17, 22])
def test_a_quantized_network(tmp_path: Path, opset: int) -> None:
    pytest.importorskip("modelopt")
    from exporter.artifacts.onnx_export import export_onnx
    from exporter.quantize.calibrate import calibrate, insert_quantizers
    from exporter.quantize.frozen import freeze
    from exporter.quantize.layers import quantizable
    from exporter.quantized_model import check_quantized_onnx
    from tests.support.quantizing import images, net

    model = net()
    insert_quantizers(model, [name for name in quantizable(model) if name != "out"])
    calibrate(model, model, images(20), method="max")
    freeze(model)
    (image,) = images(1)
    component = Component(
        name="part",
        module=model,
        inputs=(TensorSpec(name="images", dtype="float32", shape=[2, 3, 8, 12]),),
        outputs=(TensorSpec(name="output", dtype="float32", shape=list(model(image).shape)),),
        inputs_of=lambda _: (image,),
        trace_sizes={},
        check_sizes=({},),
        deployed_sizes={},
    )
    export_onnx(component, tmp_path / "part.onnx", exporter="torchscript", opset_version=opset)
    check_quantized_onnx(tmp_path / "part.onnx", component, opset)
    kinds = [node.op_type for node in onnx.load(tmp_path / "part.onnx").graph.node]
    assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") > 4
