"""Latency estimates: what layers cost, where INT8 pays, and measured times in their place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor, nn

from exporter.component import Component
from exporter.quantize.cost import BYTES, Gpu, LayerCost, latency_ms, layer_ms, module_path, read_profiles, trace_costs
from shared.errors import InputError


class Net(nn.Module):
    """A stem, two branches that are joined, one of them transposed, and a Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True))
        self.down = nn.Conv2d(8, 8, 2, stride=2)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.head = nn.Linear(12, 5)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, H * W, 5)."""
        stem = self.stem(image)
        joined = torch.cat([stem, self.up(torch.relu(self.down(stem)))], dim=1)
        result: Tensor = self.head(joined.flatten(2).transpose(1, 2))
        return result


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


@pytest.fixture(scope="module")
def costs() -> dict[str, LayerCost]:
    model = Net().eval()
    return {cost.name: cost for cost in trace_costs(layers_of(model), lambda: model(torch.rand(1, 3, 8, 8)))}


def test_multiplications_are_counted(costs: dict[str, LayerCost]) -> None:
    assert list(costs) == ["stem.0", "down", "up", "head"]
    assert costs["stem.0"].macs == 8 * 8 * 8 * 3 * 9
    assert costs["down"].macs == 8 * 4 * 4 * 8 * 4
    assert costs["up"].macs == 4 * 8 * 8 * 8  # stride 2, kernel 2: every output has one input position
    assert costs["head"].macs == 64 * 12 * 5
    assert (costs["down"].inputs, costs["down"].outputs, costs["down"].weights) == (512, 128, 256)


def test_sources_are_found_through_other_operations(costs: dict[str, LayerCost]) -> None:
    assert costs["stem.0"].sources == frozenset()
    assert costs["down"].sources == {"stem.0"}
    assert costs["up"].sources == {"down"}
    assert costs["head"].sources == {"stem.0", "up"}


GPU = Gpu({"fp32": 1e12, "fp16": 4e12, "int8": 8e12}, 1e11)


def chain(*names: str, elements: int = 1_000_000, macs: int = 10) -> list[LayerCost]:
    """Layers one after another, bound by memory."""
    before: list[frozenset[str]] = [frozenset(), *(frozenset([name]) for name in names)]
    return [LayerCost(name, macs, elements, elements, 10, source) for name, source in zip(names, before, strict=False)]


def test_roofline_takes_the_longer_of_arithmetic_and_traffic() -> None:
    (memory,) = chain("a")
    (arithmetic,) = chain("a", macs=10**12)
    assert layer_ms(memory, "fp16", GPU) == pytest.approx(1e3 * 2 * 2_000_010 / 1e11)
    assert layer_ms(arithmetic, "int8", GPU) == pytest.approx(1e3 * 2e12 / 8e12)


def test_int8_pays_in_a_run_of_layers_and_not_alone() -> None:
    layers = chain("a", "b", "c", "d", "e")
    floating = latency_ms(layers, (), GPU)
    assert latency_ms(layers, ("c",), GPU) > floating  # its input is quantized by a pass of its own
    assert latency_ms(layers, "abcde", GPU) < latency_ms(layers, "bcd", GPU) < floating


def test_one_pass_serves_all_layers_that_read_a_tensor() -> None:
    heads = [LayerCost(name, 10, 1_000_000, 10, 10, frozenset("a")) for name in ("h1", "h2")]
    layers = [*chain("a"), *heads]
    saved = 2 * (layer_ms(heads[0], "fp16", GPU) - layer_ms(heads[0], "int8", GPU, "fp16"))
    one_pass = 1e3 * 1_000_000 * (BYTES["fp16"] + BYTES["int8"]) / GPU.bandwidth
    expected = latency_ms(layers, (), GPU) - saved + one_pass
    assert latency_ms(layers, ("h1", "h2"), GPU) == pytest.approx(expected)


def test_measured_times_take_the_rooflines_place() -> None:
    layers = chain("a", "b")
    times = {"a": {"fp16": 5.0, "int8": 3.0}, "b": {"fp16": 4.0}}
    assert latency_ms(layers, (), GPU, times=times) == pytest.approx(9.0)
    ratio = layer_ms(layers[1], "int8", GPU) / layer_ms(layers[1], "fp16", GPU)
    first_pass = 1e3 * 1_000_000 * 3 / GPU.bandwidth
    assert latency_ms(layers, ("a", "b"), GPU, times=times) == pytest.approx(3.0 + 4.0 * ratio + first_pass)


@pytest.mark.parametrize(
    ("node", "path"),
    [
        ("/backbone/blocks.0/blocks.0.3/Conv", "backbone.blocks.0.3"),
        ("/task_heads.0/reg/reg.0/conv/Conv", "task_heads.0.reg.0.conv"),
        ("/layers.0/linear/MatMul", "layers.0.linear"),
        ("Conv_12", ""),
    ],
)
def test_module_of_an_onnx_node(node: str, path: str) -> None:
    assert module_path(node) == path


def component(model: nn.Module) -> Component:
    """A part whose own modules stand one level deeper than the nodes' scopes say."""
    wrapper = nn.Module()
    wrapper.add_module("part", model)
    return Component("part", wrapper, (), (), lambda sizes: (), {}, (), {})


def report(path: Path, layers: list[dict[str, Any]], times: dict[str, float] | None) -> Path:
    path.write_text(json.dumps({"layers": layers, "times_ms": times}))
    return path


def test_times_of_an_engine_go_to_their_layers(tmp_path: Path) -> None:
    model = Net()
    layers = [
        {"name": "x", "precision": "fp16", "nodes": ["/stem/stem.0/Conv", "/stem/stem.1/Relu"]},
        {"name": "y", "precision": "fp16", "nodes": ["/down/Conv", "/head/MatMul"]},
        {"name": "z", "precision": "fp16", "nodes": ["/Concat"]},
    ]
    path = report(tmp_path / "engine.json", layers, {"x": 2.0, "y": 3.16, "z": 1.0})
    found = read_profiles([path], [component(model)], layers_of(model))
    assert found["stem.0"] == {"fp16": 2.0}
    assert found["down"]["fp16"] == pytest.approx(2.56) and found["head"]["fp16"] == pytest.approx(0.6)
    assert "up" not in found


def test_bad_reports_are_one_line(tmp_path: Path) -> None:
    model = Net()
    node = {"name": "x", "precision": "fp16", "nodes": ["/elsewhere/Conv"]}
    (tmp_path / "broken.json").write_text("{")
    for path, problem in (
        (tmp_path / "broken.json", "can't be read as JSON"),
        (report(tmp_path / "untimed.json", [node], None), "has no times"),
        (report(tmp_path / "other.json", [node], {"x": 1.0}), "none of its layers"),
    ):
        with pytest.raises(InputError, match=problem):
            read_profiles([path], [component(model)], layers_of(model))
