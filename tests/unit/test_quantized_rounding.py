"""What the export's check allows for a quantized network: what its own rounding does to its results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.exporter

from exporter.artifacts.checks import TOLERANCE, Agreement, compare, root_mean_square  # noqa: E402
from exporter.artifacts.programs import check_program, export_program  # noqa: E402
from exporter.component import Component  # noqa: E402
from exporter.quantize.frozen import FixedQuantizer, freeze_from, put_weights_on_grid  # noqa: E402
from exporter.quantized_model import check_quantized_program  # noqa: E402
from shared.errors import ExportError  # noqa: E402
from shared.spec import TensorSpec  # noqa: E402


class OnTheEdge(torch.nn.Module):
    """Half of its values lie half-way between two steps of int8: either is right."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 1, 1, bias=False)
        self.layer.weight.data.fill_(1.0)
        self.quantizer = FixedQuantizer(torch.tensor(1.0), None)

    def forward(self, image: Any) -> Any:
        return self.quantizer(self.layer(image))


def component(values: Any) -> Component:
    shape = list(values.shape)
    return Component(
        name="edge", module=OnTheEdge().eval(), inputs=(TensorSpec(name="x", dtype="float32", shape=shape),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=shape),), inputs_of=lambda sizes: (values,),
        trace_sizes={}, check_sizes=({},), deployed_sizes={},
    )  # fmt: skip


def test_values_between_two_steps_may_fall_to_either_and_no_others() -> None:
    values = (torch.arange(64.0) / 2).reshape(1, 1, 8, 8)
    other = torch.where(values % 1 == 0.5, values.floor(), values).numpy()

    def check(got: Any) -> None:
        compare(component(values), lambda inputs: [got], TOLERANCE, "ONNX Runtime", rounding_margin=4.0,
                measure=root_mean_square)  # fmt: skip

    check(other)
    with pytest.raises(ExportError, match="standard deviation in root mean square"):
        check(other[..., ::-1])
    # Away from the edges there is nothing to allow for.
    whole = values.floor() + 0.25
    with pytest.raises(ExportError, match="differ in 'y'"):
        compare(component(whole), lambda inputs: [whole.round().numpy() + 0.01], TOLERANCE, "ONNX Runtime",
                rounding_margin=4.0, measure=root_mean_square)  # fmt: skip


class Rounded(torch.nn.Module):
    """A quantized convolution with an input half-way between two steps of int8, but for what ``factor`` does."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before = torch.nn.Conv2d(1, 4, 1, bias=False)
        self.before.weight.data.fill_(factor)
        layers = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3, bias=False))
        scales = {"0.input_quantizer.scale": torch.tensor(1.0), "0.weight_quantizer.scale": torch.full((4,), 0.01)}
        freeze_from(layers, scales)
        put_weights_on_grid(layers)
        self.layers = layers

    def forward(self, image: Any) -> Any:
        return self.layers(self.before(image))


def quantized_component(module: Any) -> Component:
    values = (torch.arange(64.0) * 7 % 64 - 31.75).reshape(1, 1, 8, 8)
    values[0, 0, 4, 4] = 21.5
    return replace(
        component(values), module=module.eval(), outputs=(TensorSpec(name="y", dtype="float32", shape=[1, 4, 6, 6]),)
    )


def checked(tmp_path: Path, program: Any) -> None:
    """Check a program of one module against another one, as an export would find it."""

    def check(loaded: Any, _: Component) -> list[Agreement]:
        return check_quantized_program(loaded, quantized_component(Rounded()))

    export_program(quantized_component(program), tmp_path / "x.pt2", check)


def test_a_program_may_put_values_between_two_steps_to_either(tmp_path: Path) -> None:
    nearly = Rounded(1 - 1e-7)
    with pytest.raises(ExportError, match="the program and PyTorch differ"):
        export_program(
            quantized_component(nearly), tmp_path / "x.pt2", lambda loaded, _: check_program(
                loaded, quantized_component(Rounded())
            )
        )  # fmt: skip
    checked(tmp_path, nearly)


def other_scale(program: Any) -> None:
    program.layers[0].input_quantizer.set_scale(torch.tensor(4.0))


def other_weight(program: Any) -> None:
    program.layers[0].weight.data[2, 1, 1, 0] += 0.01


def other_row(program: Any) -> None:
    program.layers[0].weight.data = program.layers[0].weight.data.flip(0)


def slightly_more(program: Any) -> None:
    program.before.weight.data += 1e-3


@pytest.mark.parametrize("fault", [other_scale, other_weight, other_row, slightly_more])
def test_a_program_that_computes_something_else_is_seen(tmp_path: Path, fault: Any) -> None:
    program = Rounded()
    checked(tmp_path, program)
    fault(program)
    with pytest.raises(ExportError, match="and PyTorch differ in 'y'"):
        checked(tmp_path, program)
