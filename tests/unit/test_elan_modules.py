"""AWML's YOLOX-opt-ELAN modules: names and shapes of the weights, sizes of the maps, and what is not there."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

pytestmark = pytest.mark.exporter

torch = pytest.importorskip("torch")
pytest.importorskip("mmengine")

RELU6 = {"type": "ReLU6"}


@pytest.fixture(scope="module")
def elan() -> Any:
    """The module, imported when a test runs: it needs mmcv, and mmcv its operators or a stand-in."""
    from exporter.mmcv_ops import provide_mmcv_ops

    provide_mmcv_ops()
    return importlib.import_module("exporter.models.yolox.elan")


def shapes(module: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def test_full_size_backbone_has_awmls_names_and_shapes(elan: Any) -> None:
    weights = shapes(elan.ELANDarknet(deepen_factor=2, widen_factor=1, act_cfg=RELU6))
    expected = {
        "stem.conv.0.conv.weight": (32, 3, 3, 3),
        "stem.conv.1.conv.weight": (32, 32, 3, 3),
        "stem.conv.1.bn.running_var": (32,),
        "stage1.0.conv.weight": (64, 32, 3, 3),
        "stage1.1.main_conv.conv.weight": (32, 64, 1, 1),
        "stage1.1.short_conv.bn.weight": (32,),
        "stage1.1.blocks.1.conv2.conv.weight": (32, 32, 3, 3),
        "stage1.1.final_conv.conv.weight": (64, 96, 1, 1),
        "stage2.1.blocks.5.conv1.conv.weight": (64, 64, 3, 3),
        "stage3.1.final_conv.conv.weight": (256, 7 * 128, 1, 1),
        "stage4.0.conv.weight": (512, 256, 3, 3),
        "stage4.1.blocks.1.conv1.conv.weight": (256, 256, 3, 3),
    }
    assert {name: weights.get(name) for name in expected} == expected
    assert "stage4.1.blocks.2.conv1.conv.weight" not in weights
    assert not any(name.endswith("conv.bias") for name in weights)


def test_full_size_neck_has_awmls_names_and_shapes(elan: Any) -> None:
    weights = shapes(
        elan.YOLOXPAFPN_ELAN(in_channels=[128, 256, 512], out_channels=128, num_elan_blocks=2, act_cfg=RELU6)
    )
    expected = {
        "reduce_layers.0.conv.weight": (256, 512, 1, 1),
        "reduce_layers.1.conv.weight": (128, 256, 1, 1),
        "top_down_blocks.0.main_conv.conv.weight": (128, 512, 1, 1),
        "top_down_blocks.1.final_conv.conv.weight": (128, 3 * 64, 1, 1),
        "downsamples.0.conv.weight": (128, 128, 3, 3),
        "downsamples.1.conv.weight": (256, 256, 3, 3),
        "bottom_up_blocks.0.short_conv.conv.weight": (128, 256, 1, 1),
        "bottom_up_blocks.1.blocks.1.conv2.conv.weight": (256, 256, 3, 3),
        "out_convs.2.conv.weight": (128, 512, 1, 1),
    }
    assert {name: weights.get(name) for name in expected} == expected


def test_maps_have_strides_8_16_32(elan: Any) -> None:
    backbone = elan.ELANDarknet(deepen_factor=1, widen_factor=0.25, act_cfg=RELU6).eval()
    neck = elan.YOLOXPAFPN_ELAN(in_channels=[32, 64, 128], out_channels=24, num_elan_blocks=1, act_cfg=RELU6).eval()
    with torch.no_grad():
        maps = backbone(torch.rand(2, 3, 64, 96))
        outputs = neck(maps)
    assert [tuple(level.shape) for level in maps] == [(2, 32, 8, 12), (2, 64, 4, 6), (2, 128, 2, 3)]
    assert [tuple(level.shape) for level in outputs] == [(2, 24, 8, 12), (2, 24, 4, 6), (2, 24, 2, 3)]


def test_every_link_of_the_chain_is_in_the_output(elan: Any) -> None:
    torch.manual_seed(0)
    block = elan.ELAN(8, 8, num_blocks=2, expand_ratio=0.5, identity=True, act_cfg=None, norm_cfg=None)
    x = torch.rand(1, 8, 5, 5)
    with torch.no_grad():
        first = block.main_conv(x)
        second = first + block.blocks[0].conv2(block.blocks[0].conv1(first))
        third = second + block.blocks[1].conv2(block.blocks[1].conv1(second))
        expected = block.final_conv(torch.cat([block.short_conv(x), second, third], dim=1))
        torch.testing.assert_close(block(x), expected)
        block.blocks[0].identity = False
        assert not torch.allclose(block(x), expected)


@pytest.mark.parametrize("options", [{"arch": "P5_ASPP"}, {"use_depthwise": True}])
def test_variants_that_are_not_there(options: dict[str, Any], elan: Any) -> None:
    with pytest.raises(ValueError, match="only arch P5"):
        elan.ELANDarknet(**options)
