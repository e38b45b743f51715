"""A window of a graph, run by the test and by the reference: whether they disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.arrays import Arrays
from shared.errors import InferenceError
from shared.onnx_windows import Graph, as_types_of
from verifier.bisect.runners import OnnxRunner, Runner
from verifier.statistics import OutputStatistics


@dataclass(frozen=True)
class Case:
    """What is compared: one component on some samples.

    Attributes:
        graph: the graph under test.
        reference: the graph that is right; the same one when two backends are compared.
        samples: inputs of the component, per sample.
        runner: what runs the graph under test.
        limit: signal to noise ratio [dB] below which a window is bad.
    """

    graph: Graph
    reference: Graph
    samples: list[Arrays]
    runner: Runner
    limit: float


def answer(case: Case, first: int, last: int) -> dict[str, Any]:
    """Whether the test disagrees on the nodes ``[first, last)``, and by how much: JSON.

    A window that the test's runner can't load or run is bad too: that it can't is what is looked for then.
    """
    entering, leaving = case.graph.boundary(first, last)
    if not leaving:
        return {"bad": False, "outputs": {}, "reason": None}
    values = reference_values(case, [*entering, *leaving])
    given = [as_types_of(case.graph, {name: sample[name] for name in entering}) for sample in values]
    try:
        answers = case.runner.run(case.graph.window(first, last, given, leaving), given)
    except InferenceError as error:
        return {"bad": True, "outputs": {}, "reason": str(error)}
    outputs, bad = {}, False
    for name in leaving:
        statistics = OutputStatistics()
        for index, (right, answer) in enumerate(zip(values, answers, strict=True)):
            statistics.add(index, right[name], answer[name])
        summary = statistics.summary()
        bad |= disagrees(summary, exact=not np.issubdtype(values[0][name].dtype, np.floating), limit=case.limit)
        keep = ("max_abs", "mean_abs", "snr_db", "cosine", "noise_energy", "test_nan", "test_inf", "problems")
        outputs[name] = {key: summary[key] for key in keep}
    return {"bad": bool(bad), "outputs": outputs, "reason": None}


def disagrees(summary: Mapping[str, Any], *, exact: bool, limit: float) -> bool:
    """Whether an output differs too much.

    Args:
        summary: of `OutputStatistics`.
        exact: whole numbers and truth values must be equal.
        limit: signal to noise ratio [dB] that others must have.
    """
    if summary["problems"] or any(summary[f"reference_{kind}"] != summary[f"test_{kind}"] for kind in ("nan", "inf")):
        return True
    if not summary["noise_energy"]:
        return False
    return exact or summary["snr_db"] is None or summary["snr_db"] < limit


def reference_values(case: Case, names: Sequence[str]) -> list[dict[str, Any]]:
    """Tensors of the reference, per sample; only these are kept, so memory does not grow with the graph."""
    computed = [name for name in dict.fromkeys(names) if name not in case.reference.inputs]
    if not computed:
        return [dict(sample) for sample in case.samples]
    given = [as_types_of(case.reference, sample) for sample in case.samples]
    model = case.reference.up_to(computed, given)
    used = {value.name for value in model.graph.input}
    answers = OnnxRunner(optimize=False).run(
        model, [{name: sample[name] for name in sample if name in used} for sample in given]
    )
    return [{**sample, **answer} for sample, answer in zip(case.samples, answers, strict=True)]
