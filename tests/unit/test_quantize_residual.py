"""Skip connections and concatenations: quantized so that they meet with one scale, in PyTorch, ONNX and checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.exporter

import onnx  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

pytest.importorskip("modelopt")
pytest.importorskip("mmdet")
from exporter.mmcv_ops import provide_mmcv_ops  # noqa: E402
from exporter.models.yolox.elan import ELAN  # noqa: E402
from exporter.quantize.calibrate import CalibrationManager  # noqa: E402
from exporter.quantize.frozen import QMAX, freeze, freeze_from, set_quantized  # noqa: E402
from exporter.quantize.fusion import fold, fuse_model_bn, fused_pairs  # noqa: E402
from exporter.quantize.layers import quantizable, select  # noqa: E402
from exporter.quantize.residual import SkipQuantizer, place_skips, share_scales  # noqa: E402
from shared.qdq_lint import float_sums, lint  # noqa: E402


def resnet() -> nn.Module:
    provide_mmcv_ops()
    from mmdet.models.backbones.resnet import ResNet

    torch.manual_seed(0)
    return with_statistics(ResNet(depth=18, in_channels=3, stem_channels=4, base_channels=4, norm_eval=False))


def elan() -> nn.Module:
    torch.manual_seed(0)
    return with_statistics(
        ELAN(4, 8, num_blocks=2, expand_ratio=0.5, identity=True, norm_cfg={"type": "BN"}, act_cfg={"type": "ReLU6"})
    )


def with_statistics(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.2)
            nn.init.normal_(module.bias)
    model.eval()  # mmdet's returns nothing
    return model


def images(channels: int, count: int = 3) -> list[Any]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(1, channels, 64, 64, generator=generator) for _ in range(count)]


def quantized(model: nn.Module, samples: list[Any], skip: tuple[str, ...] = ()) -> nn.Module:
    fuse_model_bn(model, lambda: model(samples[0]))
    CalibrationManager(model, select(model, skip), model).calibrate(samples, len(samples), "max")
    freeze(model)
    return model


def findings(model: nn.Module, sample: Any, path: Path) -> list[Any]:
    torch.onnx.export(model, (sample,), str(path), opset_version=17, dynamo=False)
    return lint(onnx.load(str(path)))


@pytest.fixture(scope="module")
def samples() -> list[Any]:
    return images(3)


def test_the_skip_connections_of_a_resnet_are_quantized(samples: list[Any], tmp_path: Path) -> None:
    model = quantized(resnet(), samples)
    seen: list[Any] = []
    handle = model.layer2[0].downsample.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.no_grad():
        for sample in samples:
            model(sample)
    handle.remove()
    assert share_scales(model, model, samples) == 8
    # What passes unchanged has the scale of the layer that reads it; what passes a layer, that of its own values.
    same: Any = model.layer1[1]
    assert same.downsample.skip_quantizer.scale == same.conv1.input_quantizer.scale
    own: Any = model.layer2[0].downsample.skip_quantizer
    assert own.scale == pytest.approx(max(float(value.abs().max()) for value in seen) / QMAX, rel=0.2)
    assert own.scale != model.layer2[0].conv1.input_quantizer.scale
    assert findings(model, samples[0], tmp_path / "resnet.onnx") == []


def test_a_checkpoint_with_skips_loads_strictly_into_a_new_model(samples: list[Any]) -> None:
    model = quantized(resnet(), samples)
    share_scales(model, model, samples)
    state = model.state_dict()
    fresh = resnet()
    fold(fresh, fused_pairs(model))
    freeze_from(fresh, state)
    place_skips(fresh, state)
    fresh.load_state_dict(state, strict=True)
    with torch.no_grad():
        for one, other in zip(model(samples[0]), fresh(samples[0]), strict=True):
            assert torch.equal(one, other)


def test_a_skip_follows_the_layer_that_takes_it_in(samples: list[Any]) -> None:
    model = quantized(resnet(), samples)
    share_scales(model, model, samples)
    set_quantized(model, [])
    plain = resnet()
    fold(plain, fused_pairs(model))
    with torch.no_grad():
        assert torch.equal(model(samples[0])[-1], plain(samples[0])[-1])


@pytest.mark.parametrize("layer", [r"layer1\.1\.conv1$", r"layer2\.0\.conv2$"])
def test_no_skip_is_quantized_beside_a_layer_in_float(samples: list[Any], layer: str, tmp_path: Path) -> None:
    model = quantized(resnet(), samples, (layer,))
    assert share_scales(model, model, samples) == 7
    block = model.get_submodule(layer.replace("\\", "").rpartition(".")[0])
    assert not any(isinstance(module, SkipQuantizer) for module in block.modules())
    assert findings(model, samples[0], tmp_path / "resnet.onnx") == []


def test_a_sum_is_read_in_int8_alone_beside_a_last_layer_in_float(samples: list[Any], tmp_path: Path) -> None:
    model = quantized(resnet(), samples, (r"layer1\.1\.conv2$",))
    assert share_scales(model, model, samples) == 8
    path = tmp_path / "resnet.onnx"
    assert findings(model, samples[0], path) == []
    assert not [name for name in float_sums(onnx.load(str(path))) if "layer1.0" in name]


def test_what_a_concat_of_elan_joins_has_one_scale(tmp_path: Path) -> None:
    samples = images(4)
    model: Any = quantized(elan(), samples)
    link, joined = model.blocks[1].conv1.conv.input_quantizer, model.final_conv.conv.input_quantizer
    before = max(float(link.scale), float(joined.scale))
    assert link.scale != joined.scale
    assert share_scales(model, model, samples) == 2
    assert link.scale == joined.scale == model.blocks[1].skip.skip_quantizer.scale == before
    assert model.main_conv.conv.input_quantizer.scale == model.short_conv.conv.input_quantizer.scale
    assert findings(model, samples[0], tmp_path / "after.onnx") == []
    assert set(quantizable(model)) == set(quantizable(elan()))


def test_upsampling_and_pooling_pass_a_scale_and_arithmetic_does_not(samples: list[Any]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Conv2d(3, 3, 1) for _ in range(4))
            self.up, self.pool = nn.Upsample(scale_factor=2), nn.MaxPool2d(2)

        def forward(self, image: Any) -> Any:
            smaller = nn.functional.interpolate(image, scale_factor=0.5, mode="bilinear")
            return self.a(image), self.b(self.up(smaller)), self.c(self.pool(smaller)), self.d(image * 3.0)

    model: Any = quantized(Net().eval(), samples)
    share_scales(model, model, samples)
    scales = {name: float(getattr(model, name).input_quantizer.scale) for name in "abcd"}
    assert scales["b"] == scales["c"] < scales["a"] < scales["d"]
