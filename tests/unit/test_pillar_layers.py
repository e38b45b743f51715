"""Batch norms of a pillar encoder, folded for export: the same features from a graph without them."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest

from tests.support.exporting import CONFIGS, SMALL, built, points

pytestmark = pytest.mark.exporter

PILLARS, SLOTS = 300, 32
# Largest difference from float64, relative to the largest feature: some roundings of float32 (1.2e-7).
ROUNDING = 1e-6


@pytest.fixture(scope="module", autouse=True)
def _mmcv_ops():
    from exporter.mmcv_ops import provide_mmcv_ops

    provide_mmcv_ops()


def pillar_layers(*widths, norm="BN1d", bias=False, **norm_options):
    """PFN layers with random statistics: variances from 1e-12 to 1e2, gains of either sign."""
    import torch
    from mmdet3d.models.voxel_encoders.utils import PFNLayer

    torch.manual_seed(0)
    config = {"type": norm, **({"eps": 1e-3} if norm == "BN1d" else {}), **norm_options}
    layers = torch.nn.ModuleList(
        PFNLayer(*shape, norm_cfg=config, last_layer=i == len(widths) - 2)
        for i, shape in enumerate(itertools.pairwise(widths))
    )
    for layer in layers:
        if bias:
            layer.linear = torch.nn.Linear(layer.linear.in_features, layer.units)
        if isinstance(layer.norm, torch.nn.BatchNorm1d) and layer.norm.running_mean is not None:
            layer.norm.running_mean.normal_(0, 2)
            layer.norm.running_var.copy_(10 ** torch.linspace(-12, 2, layer.units))
        if layer.norm.weight is not None:
            torch.nn.init.normal_(layer.norm.weight)
            torch.nn.init.normal_(layer.norm.bias)
    return layers.eval()


def decorated(features=11):
    """(PILLARS, SLOTS, features) points up to 121 m away, unused slots zero."""
    import torch

    generator = torch.Generator().manual_seed(1)
    values = torch.rand(PILLARS, SLOTS, features, generator=generator) * 242 - 121
    used = torch.randint(1, SLOTS + 1, (PILLARS, 1), generator=generator)
    return values * (torch.arange(SLOTS) < used)[:, :, None]


def run(layers, values):
    import torch

    with torch.no_grad():
        for layer in layers:
            values = layer(values)
    return values


def difference(layers, exact_layers):
    """Of the features in float32 from those of other layers in float64, relative to the largest."""
    exact = run(copy.deepcopy(exact_layers).double(), decorated().double())
    return float((run(layers, decorated()) - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize("widths", [(11, 32), (11, 32, 32), (11, 64, 64, 32)], ids=["one", "two", "three layers"])
@pytest.mark.parametrize("options", [{}, {"bias": True}, {"affine": False}], ids=["plain", "bias", "not affine"])
def test_folded_layers_give_the_same_features_and_the_model_keeps_its_own(widths, options):
    from exporter.lidar.pillar_layers import PillarLayer, folded

    layers = pillar_layers(*widths, **options)
    before = {name: value.clone() for name, value in layers.state_dict().items()}
    result = folded(layers)
    assert all(type(layer) is PillarLayer for layer in result)
    assert difference(result, layers) < ROUNDING
    assert run(result, decorated()).shape == (PILLARS, 1, widths[-1])
    for name, value in layers.state_dict().items():
        assert value.equal(before.pop(name))
    assert not before


def test_weights_are_rounded_once():
    import torch

    from exporter.lidar.pillar_layers import folded

    layers = pillar_layers(11, 32)
    norm, linear = layers[0].norm, layers[0].linear
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    result = folded(layers)[0].linear
    # One unit in the last place: torch's rsqrt in float64 may be one of float64's off.
    for value, exact in (
        (result.weight, linear.weight.double() * scale[:, None]),
        (result.bias, norm.bias.double() - norm.running_mean.double() * scale),
    ):
        torch.testing.assert_close(value.double(), exact, rtol=2.0**-23, atol=0)


@pytest.mark.parametrize(
    "options",
    [{"norm": "GN", "num_groups": 4}, {"norm": "IN1d"}, {"track_running_stats": False}],
    ids=["group norm", "instance norm", "no statistics"],
)
def test_other_norms_stay(options):
    from exporter.lidar.pillar_layers import PillarLayer, folded

    layers = pillar_layers(11, 32, **options)
    result = folded(layers)
    assert not any(isinstance(layer, PillarLayer) for layer in result)
    assert run(result, decorated()).equal(run(layers, decorated()))


def test_a_quantized_linear_keeps_weights_and_scales():
    """Of two layers, the one in float is folded, the one in int8 is not; a checkpoint with both folded has neither."""
    import torch

    from exporter.lidar.pillar_layers import PillarLayer, folded
    from exporter.quantize.frozen import FrozenLinear, freeze_from
    from exporter.quantize.fusion import fold

    def quantized(layers):
        scales = {
            "1.linear.input_quantizer.scale": torch.tensor(0.05),
            "1.linear.weight_quantizer.scale": layers[1].linear.weight.detach().abs().amax(dim=1) / 127,
        }
        freeze_from(layers, scales)
        return layers

    layers = quantized(pillar_layers(11, 32, 32))
    result = folded(layers)
    assert [type(layer) is PillarLayer for layer in result] == [True, False]
    assert isinstance(result[1].linear, FrozenLinear)
    assert result[1].linear.weight.equal(layers[1].linear.weight)

    layers = pillar_layers(11, 32, 32)
    fold(layers, [("0.linear", "0.norm"), ("1.linear", "1.norm")])
    quantized(layers)
    result = folded(layers)
    assert [type(layer) is PillarLayer for layer in result] == [True, True]
    assert result[1].linear.weight.equal(layers[1].linear.weight)
    assert run(result, decorated()).equal(run(layers, decorated()))


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize(
    ("config", "columns"), [(SMALL, 4), (CONFIGS / "short_range_backward.py", 4)], ids=["small", "backward"]
)
def test_the_graph_has_no_batch_norm_and_no_transpose(config, columns, exporter, tmp_path):
    import onnx

    from exporter.artifacts.checks import check_onnx
    from exporter.artifacts.onnx_export import export_onnx
    from exporter.models.centerpoint.components import encoder_component
    from exporter.models.centerpoint.framework import run_parts

    model, _, _ = built(config)
    component = encoder_component(model, run_parts(model, points(columns)).decorated)
    export_onnx(component, tmp_path / "encoder.onnx", exporter=exporter, opset_version=18)
    check_onnx(tmp_path / "encoder.onnx", component, 18)
    kinds = [node.op_type for node in onnx.load(tmp_path / "encoder.onnx").graph.node]
    layer = ["MatMul", "Add", "Relu", "ReduceMax"]
    assert [kind for kind in kinds if kind in layer] == [*layer, *layer]
    # Between the layers, every point gets the maximum beside it.
    assert set(kinds) - set(layer) - {"Constant"} == {"Shape", "Expand", "Concat"}


def test_the_program_has_no_batch_norm_and_no_permutation(tmp_path):
    import torch

    from exporter.artifacts.programs import export_program
    from exporter.models.centerpoint.components import encoder_component
    from exporter.models.centerpoint.framework import run_parts

    model, _, _ = built(SMALL)
    component = encoder_component(model, run_parts(model, points(4)).decorated)
    export_program(component, tmp_path / "encoder.pt2")
    called = {str(node.target) for node in torch.export.load(tmp_path / "encoder.pt2").graph.nodes}
    assert not [name for name in called if "norm" in name or "permute" in name or "transpose" in name]
    assert np.any(["linear" in name for name in called])
