"""`verifier bisect`: the recipe. Which graph, which inputs, ask window by window, record who is responsible."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from shared.answer import Answer
from shared.ask_ahead import Ask, asking_ahead
from shared.cluster import Need, Workers, connect
from shared.component_tensors import components_of, find_trace, traced_samples
from shared.journal import Journal
from shared.json_reader import read_json
from shared.lazy import lazy_import
from shared.onnx_windows import Graph, as_types_of, node_title
from shared.spec import ComponentSpec
from shared.stages import StageRun
from shared.table import Table, number
from shared.workspace import Workspace
from verifier.bisect.runners import Runner
from verifier.bisect.search import Window, find_bad
from verifier.bisect.windows import Case, answer, reference_values

onnx = lazy_import("onnx")

#: Version of the files in ``bisect/``; raise it when their meaning changes.
FORMAT = 1

_log = logging.getLogger("bisect")


class Nodes(NamedTuple):
    """The nodes ``[first, last)`` of a component."""

    component: str
    first: int
    last: int

    @property
    def key(self) -> str:
        """Their name in the journal of the component."""
        return f"{self.first}-{self.last}"


@dataclass(frozen=True)
class Comparison:
    """What is compared with what.

    Attributes:
        reference_work: workspace whose graphs are right, and whose trace gives the inputs.
        runner: what runs the graphs under test.
        limit: signal to noise ratio [dB] below which outputs disagree.
        trace_name: which trace; None: any.
        num_samples: how many of its samples; None: all.
    """

    reference_work: Path
    runner: Runner
    limit: float
    trace_name: str | None
    num_samples: int | None

    def case(self, workspace: Workspace, component: ComponentSpec) -> Case:
        """One component of a workspace, ready to be asked about.

        Raises:
            InputError: no trace, or graphs that can't be compared.
        """
        reference = Workspace.open(self.reference_work)
        trace = find_trace(reference, self.trace_name)
        return Case(
            graph=Graph.load(workspace.onnx(component.onnx)),
            reference=Graph.load(reference.onnx(component.onnx)),
            samples=[each.inputs for each in traced_samples(reference, trace, component, self.num_samples)],
            runner=self.runner,
            limit=self.limit,
        )


def bisect(
    work: Path,
    runner: Runner,
    limit: float,
    *,
    component: str | None = None,
    reference_work: Path | None = None,
    trace_name: str | None = None,
    num_samples: int | None = None,
    cluster: str | None = None,
    runner_gpu: bool = False,
    force: bool = False,
) -> Answer:
    """Find the responsible nodes of one component, or of each. Interrupted, the next call goes on.

    The reference is ONNX Runtime without optimization, on the graphs of ``reference_work`` (None: of ``work``, to
    compare backends), with the inputs of its trace. Outputs whose signal to noise ratio is below ``limit`` [dB]
    disagree. On a ``cluster`` (`shared.cluster.connect`), the windows that a step of the search may need are run side
    by side, with ``runner_gpu`` each on a GPU of its own. Returns what to print.

    Raises:
        InputError: no trace, no such component, or graphs that can't be compared.
        InferenceError: the reference can't be run.
        UsageError, EnvironmentLacks: no such cluster, or a node lacks something.
    """
    workspace = Workspace.open(work)
    comparison = Comparison((reference_work or work).absolute(), runner, limit, trace_name, num_samples)
    with contextlib.ExitStack() as opened:

        @functools.cache
        def workers() -> Workers[Nodes, dict[str, Any]] | None:
            if cluster is None:
                return None
            folders = sorted({workspace.root.absolute(), comparison.reference_work})
            make = functools.partial(open_worker, workspace.root.absolute(), comparison)
            need = Need(gpu=runner_gpu, module="verifier", folders=folders)
            return opened.enter_context(opened.enter_context(connect(cluster)).workers(make, need))

        found = {
            each.name: _component(workspace, each, comparison, force, workers)
            for each in components_of(workspace, component)
        }
    return Answer("\n\n".join(map(_text, found.values())), {"components": found})


def open_worker(work: Path, comparison: Comparison) -> Callable[[Nodes], dict[str, Any]]:
    """What answers about windows, in a worker of a cluster."""
    workspace = Workspace.open(work)

    @functools.lru_cache(maxsize=1)
    def case(name: str) -> Case:
        return comparison.case(workspace, components_of(workspace, name)[0])

    return lambda nodes: answer(case(nodes.component), nodes.first, nodes.last)


def _component(
    workspace: Workspace,
    component: ComponentSpec,
    comparison: Comparison,
    force: bool,
    workers: Callable[[], Workers[Nodes, dict[str, Any]] | None],
) -> Any:
    reference = Workspace.open(comparison.reference_work)
    stage = workspace.stage(
        f"bisect:{component.name}",
        tool="verifier",
        config={
            "runner": comparison.runner.name,
            "limit": comparison.limit,
            "num_samples": comparison.num_samples,
        },
        inputs={
            component.onnx: workspace.input_hash(component.onnx),
            "reference": reference.input_hash(component.onnx),
            "trace": find_trace(reference, comparison.trace_name).header.fingerprint,
        },
    )
    relative = f"bisect/{component.name}.json"
    if force or not stage.up_to_date():
        helpers = workers()
        with stage:
            journal = Journal.open(workspace.place(f"bisect/{component.name}.journal"), stage.fingerprint, force)
            case = comparison.case(workspace, component)
            result = find_nodes(case, journal, component.name, helpers)
            stage.json_artifact(relative, "bisect", result)
            for position, window in enumerate(result["responsible"]):
                _keep_window(stage, case, window, f"bisect/{component.name}.{position}")
            keep = ("runner", "limit", "nodes", "runs")
            responsible = [name for window in result["responsible"] for name in window["nodes"]]
            stage.result("bisect", component.name, {**{key: result[key] for key in keep}, "responsible": responsible})
            journal.path.remove_file()
    return read_json(workspace.artifact(relative))


def _keep_window(stage: StageRun, case: Case, window: Mapping[str, Any], place: str) -> None:
    """Keep responsible nodes as a model, with the reference's values around them: for `trt_builder reproduce`."""
    first, last = window["positions"]
    entering, leaving = case.graph.boundary(first, last)
    values = reference_values(replace(case, samples=case.samples[:1]), [*entering, *leaving])[0]
    inputs = as_types_of(case.graph, {name: values[name] for name in entering})
    with stage.artifact(f"{place}.onnx", "bisect") as path:
        onnx.save(case.graph.window(first, last, [inputs], leaving), str(path))
    for kind, arrays in (("inputs", inputs), ("expected", {name: values[name] for name in leaving})):
        content = io.BytesIO()
        np.savez_compressed(content, **cast("dict[str, Any]", arrays))
        stage.bytes_artifact(f"{place}.{kind}.npz", "bisect", content.getvalue())


def find_nodes(
    case: Case, journal: Journal, title: str, workers: Workers[Nodes, dict[str, Any]] | None = None
) -> dict[str, Any]:
    """The nodes that are responsible.

    Args:
        case: what is compared.
        journal: answers so far.
        title: the component, for the log.
        workers: answer side by side; None: this process does.

    Returns:
        JSON: ``component``, ``runner``, ``limit``, ``samples``, ``nodes`` (how many there are), ``runs`` (how many
        windows the search asked about), ``responsible`` (per window, in order: ``nodes``, ``types``, ``positions`` of
        the first and after the last, ``outputs`` with their statistics, ``reason`` when the runner failed), ``whole``
        (the statistics of the whole component).

    Raises:
        InferenceError: the reference can't be run on a window.
    """
    groups = case.graph.groups(case.reference.tensors())
    asked = set()

    def nodes_of(window: Window) -> Nodes:
        return Nodes(title, groups[window[0]].start, groups[window[1] - 1].stop)

    def answers(missing: Sequence[Nodes]) -> Iterator[tuple[Nodes, dict[str, Any]]]:
        if workers is None:
            return ((nodes, answer(case, nodes.first, nodes.last)) for nodes in missing)
        return workers.results(missing, f"{title}: windows", lambda nodes: f"{title}, nodes {nodes.key}")

    def are_bad(windows: Sequence[Window]) -> list[bool]:
        wanted = [nodes_of(window) for window in windows]
        for nodes, found in answers([nodes for nodes in wanted if nodes.key not in journal.answers]):
            journal.add({"key": nodes.key, **found})
            verdict = "disagree" if found["bad"] else "agree"
            count, every = len(journal.answers), len(case.graph.nodes)
            _log.info("%s: run %d, nodes %s of %d %s", title, count, nodes.key, every, verdict)
        return [bool(journal.answers[nodes.key]["bad"]) for nodes in wanted]

    def search(ask: Ask[Window]) -> list[Window]:
        return find_bad(len(groups), lambda first, last: ask((first, last)))

    ask_ahead = asking_ahead(search, are_bad, 1 if workers is None else workers.count)

    def ask(window: Window) -> bool:
        asked.add(nodes_of(window).key)
        return ask_ahead(window)

    windows = search(ask)
    responsible = []
    for window in windows:
        place = nodes_of(window)
        nodes, found = case.graph.nodes[place.first : place.last], journal.answers[place.key]
        responsible.append(
            {
                "nodes": [node_title(node) for node in nodes],
                "types": [node.op_type for node in nodes],
                "positions": [place.first, place.last],
                "outputs": found["outputs"],
                "reason": found["reason"],
            }
        )
    return {
        "format": FORMAT,
        "component": title,
        "runner": case.runner.name,
        "limit": case.limit,
        "samples": len(case.samples),
        "nodes": len(case.graph.nodes),
        "runs": len(asked),
        "responsible": responsible,
        "whole": journal.answers[nodes_of((0, len(groups))).key]["outputs"],
    }


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
