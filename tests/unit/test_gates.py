"""Quality gates: what they read, what they compare, and that a typo is an error and not a pass."""

from __future__ import annotations

from typing import Any

import pytest

from evaluator.gates import check_gates, latency_names, parse_gate, refuse_unanswerable
from shared.errors import UsageError
from shared.latency import summarize

_EVALUATIONS: dict[str, Any] = {
    "pytorch-cpu": {
        "headline": {"mAP": 0.70, "mAP 0-50 m": 0.8, "AOE": None},
        "intervals": {"mAP": {"low": 0.66, "high": 0.73}},
        "baseline": None,
        "differences": {},
        "latency": {"total": {"mean": 20.0, "p99": 30.0}},
    },
    "onnx-cpu": {
        "headline": {"mAP": 0.69, "mAP 0-50 m": 0.8, "AOE": None},
        "intervals": {"mAP": {"low": 0.65, "high": 0.72}, "mAP 0-50 m": None},
        "baseline": "pytorch-cpu",
        "differences": {"mAP": {"low": -0.015, "high": -0.004}},
        "latency": {"total": {"mean": 25.0, "p99": 50.0}},
    },
}


def _check(text: str) -> dict[str, tuple[float | None, bool]]:
    gates = [parse_gate(text)]
    known = _EVALUATIONS["pytorch-cpu"]
    numbers = [*known["headline"], *latency_names(known["latency"]["total"])]
    refuse_unanswerable(gates, list(_EVALUATIONS), "pytorch-cpu", numbers, samples=1000)
    return {result.run: (result.value, result.passed) for result in check_gates(gates, _EVALUATIONS)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mAP < 0.6", {"pytorch-cpu": (0.70, True), "onnx-cpu": (0.69, True)}),
        ("mAP<0.695", {"pytorch-cpu": (0.70, True), "onnx-cpu": (0.69, False)}),
        ("onnx-cpu: mAP <= 0.69", {"onnx-cpu": (0.69, False)}),
        ("mAP 0-50 m > 0.75", {"pytorch-cpu": (0.8, False), "onnx-cpu": (0.8, False)}),
        ("mAP drop > 0.5%", {"onnx-cpu": (pytest.approx(0.01), False)}),
        ("mAP drop > 0.02", {"onnx-cpu": (pytest.approx(0.01), True)}),
        ("mAP rise < -2%", {"onnx-cpu": (pytest.approx(-0.01), True)}),
        ("mAP low < 0.655", {"pytorch-cpu": (0.66, True), "onnx-cpu": (0.65, False)}),
        ("mAP drop high > 1.2%", {"onnx-cpu": (pytest.approx(0.015), False)}),
        ("mAP drop low > 0.2%", {"onnx-cpu": (pytest.approx(0.004), False)}),
        ("mAP rise high > 0", {"onnx-cpu": (pytest.approx(-0.004), True)}),
        ("latency p99 >= 50", {"pytorch-cpu": (30.0, True), "onnx-cpu": (50.0, False)}),
        ("latency mean rise > 10", {"onnx-cpu": (5.0, True)}),
    ],
)
def test_gates_compare_what_they_say(text: str, expected: dict[str, tuple[float, bool]]) -> None:
    assert _check(text) == expected


def test_what_can_not_be_computed_fails() -> None:
    assert _check("AOE > 0.5") == {"pytorch-cpu": (None, False), "onnx-cpu": (None, False)}
    assert _check("onnx-cpu: mAP 0-50 m low < 0.1") == {"onnx-cpu": (None, False)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mAP", "is not a gate"),
        ("mAP = 0.5", "is not a gate"),
        ("mAP < half", "is not a gate"),
        ("mAP < 1.2.3", "is not a number"),
        ("map < 0.5", "did you mean 'mAP'"),
        ("latency p98 > 3", "did you mean 'latency p99'"),
        ("mAP dropp > 0.5", "no metric 'mAP dropp'"),
        ("onxx-cpu: mAP < 0.5", "no run is called 'onxx-cpu'"),
        ("pytorch-cpu: mAP drop > 0.5", "no baseline"),
        ("latency mean low > 3", "latency has no interval"),
        ("latency mean > 5%", "latency is in ms, not in percent"),
        ("latency mean rise > 5 %", "latency is in ms, not in percent"),
    ],
)
def test_typos_are_errors(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        _check(text)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("percentile", "samples", "needed"), [("p50", 19, 20), ("p95", 40, 200), ("p99", 999, 1000)])
def test_a_percentile_of_too_few_samples_says_how_many_it_needs(percentile: str, samples: int, needed: int) -> None:
    gate = parse_gate(f"latency {percentile} > 100")
    names = [*latency_names(summarize(range(1, samples + 1)))]
    with pytest.raises(
        UsageError, match=f"latency {percentile} needs {needed} samples, the runs have the latency of {samples}"
    ):
        refuse_unanswerable([gate], ["onnx-cpu"], "onnx-cpu", names, samples)
    names = [*latency_names(summarize(range(1, needed + 1)))]
    refuse_unanswerable([gate], ["onnx-cpu"], "onnx-cpu", names, needed)
