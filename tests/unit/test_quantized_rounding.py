"""What the export's check allows for a quantized network: what its own rounding does to its results."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.exporter

from exporter.artifacts.checks import TOLERANCE, compare, root_mean_square  # noqa: E402
from exporter.component import Component  # noqa: E402
from exporter.quantize.frozen import FixedQuantizer  # noqa: E402
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
