"""`verifier bisect`: the recipe. Which graph, which inputs, ask window by window, record who is responsible."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from shared.arrays import Arrays
from shared.component_tensors import components_of, find_trace, traced_samples
from shared.journal import Journal
from shared.json_reader import read_json
from shared.lazy import lazy_import
from shared.onnx_windows import Graph, as_types_of, node_title
from shared.spec import ComponentSpec
from shared.stages import StageRun
from shared.table import Table, number
from shared.workspace import Workspace
from verifier.bisect.runners import OnnxRunner, Runner
from verifier.bisect.search import find_bad
from verifier.statistics import OutputStatistics

onnx = lazy_import("onnx")

#: Version of the files in ``bisect/``; raise it when their meaning changes.
FORMAT = 1

_log = logging.getLogger("bisect")


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


def bisect(
    work: Path,
    runner: Runner,
    limit: float,
    *,
    component: str | None = None,
    reference_work: Path | None = None,
    trace_name: str | None = None,
    num_samples: int | None = None,
    force: bool = False,
) -> str:
    """Find the responsible nodes of one component, or of each. Interrupted, the next call goes on.

    The reference is ONNX Runtime without optimization, on the graphs of ``reference_work`` (None: of ``work``, to
    compare backends), with the inputs of its trace. Outputs whose signal to noise ratio is below ``limit`` [dB]
    disagree. Returns what to print.

    Raises:
        InputError: no trace, no such component, or graphs that can't be compared.
        InferenceError: the reference can't be run.
    """
    workspace, reference = Workspace.open(work), Workspace.open(reference_work or work)
    texts = [
        _component(workspace, reference, each, runner, limit, trace_name, num_samples, force)
        for each in components_of(workspace, component)
    ]
    return "\n\n".join(texts)


def _component(
    workspace: Workspace,
    reference: Workspace,
    component: ComponentSpec,
    runner: Runner,
    limit: float,
    trace_name: str | None,
    num_samples: int | None,
    force: bool,
) -> str:
    trace = find_trace(reference, trace_name)
    files = {"test": workspace.onnx(component.onnx), "reference": reference.onnx(component.onnx)}
    stage = workspace.stage(
        f"bisect:{component.name}",
        tool="verifier",
        config={"runner": runner.name, "limit": limit, "num_samples": num_samples},
        inputs={
            component.onnx: workspace.input_hash(component.onnx),
            "reference": reference.input_hash(component.onnx),
            "trace": trace.header.fingerprint,
        },
    )
    relative = f"bisect/{component.name}.json"
    if force or not stage.up_to_date():
        with stage:
            graph, right = Graph.load(files["test"]), Graph.load(files["reference"])
            samples = [each.inputs for each in traced_samples(reference, trace, component, num_samples)]
            journal = Journal.open(workspace.place(f"bisect/{component.name}.journal"), stage.fingerprint, force)
            case = Case(graph, right, samples, runner, limit)
            result = find_nodes(case, journal, component.name)
            stage.json_artifact(relative, "bisect", result)
            for position, window in enumerate(result["responsible"]):
                _keep_window(stage, case, window, f"bisect/{component.name}.{position}")
            keep = ("runner", "limit", "nodes", "runs")
            responsible = [name for window in result["responsible"] for name in window["nodes"]]
            stage.result("bisect", component.name, {**{key: result[key] for key in keep}, "responsible": responsible})
            journal.path.remove_file()
    return _text(read_json(workspace.artifact(relative)))


def _keep_window(stage: StageRun, case: Case, window: Mapping[str, Any], place: str) -> None:
    """Keep responsible nodes as a model, with the reference's values around them: for `trt_builder reproduce`."""
    first, last = window["positions"]
    entering, leaving = case.graph.boundary(first, last)
    values = _reference_values(replace(case, samples=case.samples[:1]), [*entering, *leaving])[0]
    inputs = as_types_of(case.graph, {name: values[name] for name in entering})
    with stage.artifact(f"{place}.onnx", "bisect") as path:
        onnx.save(case.graph.window(first, last, [inputs], leaving), str(path))
    for kind, arrays in (("inputs", inputs), ("expected", {name: values[name] for name in leaving})):
        content = io.BytesIO()
        np.savez_compressed(content, **cast("dict[str, Any]", arrays))
        stage.bytes_artifact(f"{place}.{kind}.npz", "bisect", content.getvalue())


def find_nodes(case: Case, journal: Journal, title: str) -> dict[str, Any]:
    """The nodes that are responsible.

    Args:
        case: what is compared.
        journal: answers so far.
        title: for the log.

    Returns:
        JSON: ``component``, ``runner``, ``limit``, ``samples``, ``nodes`` (how many there are), ``runs`` (how many
        windows were run), ``responsible`` (per window, in order: ``nodes``, ``types``, ``positions`` of the first and
        after the last, ``outputs`` with their statistics, ``reason`` when the runner failed), ``whole`` (the
        statistics of the whole component).
    """
    groups = case.graph.groups(case.reference.tensors())

    def ask(first: int, last: int) -> dict[str, Any]:
        key = f"{groups[first].start}-{groups[last - 1].stop}"
        if key not in journal.answers:
            journal.add({"key": key, **_answer(case, groups[first].start, groups[last - 1].stop)})
            answer = journal.answers[key]
            verdict = "disagree" if answer["bad"] else "agree"
            _log.info("%s: run %d, nodes %s of %d %s", title, len(journal.answers), key, len(case.graph.nodes), verdict)
        return journal.answers[key]

    windows = find_bad(len(groups), lambda first, last: bool(ask(first, last)["bad"]))
    responsible = []
    for first, last in windows:
        nodes = case.graph.nodes[groups[first].start : groups[last - 1].stop]
        answer = ask(first, last)
        responsible.append(
            {
                "nodes": [node_title(node) for node in nodes],
                "types": [node.op_type for node in nodes],
                "positions": [groups[first].start, groups[last - 1].stop],
                "outputs": answer["outputs"],
                "reason": answer["reason"],
            }
        )
    return {
        "format": FORMAT,
        "component": title,
        "runner": case.runner.name,
        "limit": case.limit,
        "samples": len(case.samples),
        "nodes": len(case.graph.nodes),
        "runs": len(journal.answers),
        "responsible": responsible,
        "whole": ask(0, len(groups))["outputs"],
    }


def _answer(case: Case, first: int, last: int) -> dict[str, Any]:
    """Whether the test disagrees on a window, and by how much: JSON.

    A window that the test's runner can't load or run is bad too: that it can't is what is looked for then.
    """
    from shared.errors import InferenceError

    entering, leaving = case.graph.boundary(first, last)
    if not leaving:
        return {"bad": False, "outputs": {}, "reason": None}
    values = _reference_values(case, [*entering, *leaving])
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


def _reference_values(case: Case, names: Sequence[str]) -> list[dict[str, Any]]:
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


def _text(found: Mapping[str, Any]) -> str:
    """The result for a terminal."""
    title = f"{found['component']}, {found['runner']}"
    if not found["responsible"]:
        ratios = [values["snr_db"] for values in found["whole"].values() if values["noise_energy"]]
        worst = f"SNR {min(ratios):.0f} dB" if ratios and None not in ratios else "identical"
        return f"{title}: agrees with the reference ({worst}, the limit is {found['limit']:g} dB)"
    rows = []
    for window in found["responsible"]:
        loudest = min(window["outputs"].values(), key=_ratio, default=None)
        numbers = ["-", "-"] if loudest is None else [number(loudest["snr_db"], 1), number(loudest["max_abs"], 4)]
        for position, (name, kind) in enumerate(zip(window["nodes"], window["types"], strict=True)):
            first = position == 0
            rows.append([name, kind, *(numbers if first else ["with it", ""]), (first and window["reason"]) or ""])
    count = sum(len(window["nodes"]) for window in found["responsible"])
    heading = (
        f"{title}: {count} of {found['nodes']} nodes responsible, found with {found['runs']} runs "
        f"(samples: {found['samples']}, limit: {found['limit']:g} dB)"
    )
    return Table(heading, ["node", "type", "SNR [dB]", "max abs", "reason"], rows).text()


def _ratio(values: Mapping[str, Any]) -> float:
    if not values["noise_energy"]:
        return float("inf")
    return float("-inf") if values["snr_db"] is None else float(values["snr_db"])
