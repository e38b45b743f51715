"""Graphs that an old TensorRT would build into engines that give other numbers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from shared.errors import EnvironmentLacks
from tests.support.operator_cases import cases
from trt_builder.compat import Flavor, TensorRT
from trt_builder.misread import refuse_misread

# What 8.6.0 built without a word on an H200 and answered otherwise than ONNX Runtime (tests/gpu/test_operators.py).
SILENT = {
    *(f"Scatter{kind}-{how}" for kind in ("Elements", "ND") for how in ("add-16", "mul-16", "max-18", "min-18")),
    *(
        f"Reduce{name}-{axes}-18"
        for name in ("Max", "Min", "Mean", "Prod", "L1", "L2", "SumSquare", "LogSumExp")
        for axes in ("input", "input_negative")
    ),
    "Resize-antialias-18",
    "Resize-antialias_cubic-18",
    "Split-uneven-18",
}
# Not seen to be misread, but of an opset that its parser doesn't know.
UNTRIED = {"Resize-keep_ratio-18", "Resize-keep_ratio_whole-18"}


def refused(flavor: Flavor, version: str) -> dict[str, EnvironmentLacks]:
    """Cases that this TensorRT must not build, with what is said."""
    answers = {}
    for case in cases():
        try:
            refuse_misread(TensorRT(flavor, SimpleNamespace(), version), case.model, where="head")
        except EnvironmentLacks as refusal:
            answers[case.name] = refusal
    return answers


def test_an_old_parser_gets_none_of_the_graphs_that_it_misreads_and_all_others() -> None:
    assert set(refused("tensorrt", "8.6.0")) == SILENT | UNTRIED


@pytest.mark.parametrize(("flavor", "version"), [("tensorrt", "10.0.1"), ("tensorrt", "11.4.0"), ("rtx", "1.7.1.116")])
def test_newer_parsers_answer_for_themselves(flavor: Flavor, version: str) -> None:
    assert refused(flavor, version) == {}


def test_the_message_names_the_node_and_the_way_out() -> None:
    message = str(refused("tensorrt", "8.6.0")["ReduceMax-input-18"])
    assert "TensorRT 8.6.0" in message and "'node' (ReduceMax)" in message
    assert "export.opset_version: 17" in message
