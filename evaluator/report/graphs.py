"""Section: the networks as graphs, ONNX and engines; nodes have precision and time, outputs their error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluator.report.blocks import Block, Graph, Section, Text
from evaluator.report.material import Material
from evaluator.report.tasks import TaskReport
from shared import formats
from shared.errors import EnvironmentLacks, InputError
from shared.json_reader import read_json
from shared.onnx_graph import load, node_name

# More nodes take seconds to lay out, and nobody finds anything among them.
_MOST_NODES = 800
# Of a node's name [letters].
_LONGEST_NAME = 200
# Nodes that only hold a value say nothing about the flow.
_VALUES = frozenset({"Constant"})

Node = dict[str, Any]


def section(material: Material, _: TaskReport | None) -> Section | None:
    """One graph per ONNX file of the model, and one per engine; None where there are neither."""
    errors = _output_errors(material)
    engines = _engines(material)
    blocks: list[Block] = []
    for component in material.spec.components:
        name = component.name
        if component.onnx is not None and component.onnx in material.manifest.artifacts:
            layers = [record for _, record in engines if record["component"] == name]
            try:
                model = load(material.workspace.artifact(component.onnx), weights=False)
            except (EnvironmentLacks, InputError) as error:
                blocks.append(Text(f"{component.onnx}: {error.message}", "muted"))
            else:
                nodes, edges = onnx_graph(model, layers[-1] if layers else None, errors)
                blocks.append(_graph(f"onnx-{name}", f"{name}: ONNX", nodes, edges))
    for number, (target, record) in enumerate(engines):
        nodes, edges = engine_graph(record, errors)
        blocks.append(_graph(f"engine-{number}", f"{record['component']}: engine {target}", nodes, edges))
    return Section("graphs", "Graphs", blocks) if blocks else None


def _engines(material: Material) -> list[tuple[str, dict[str, Any]]]:
    """Records of the engines with the names of their targets."""
    return [
        (Path(path).parent.name, read_json(material.workspace.artifact(path)))
        for path, record in sorted(material.manifest.artifacts.items())
        if record.kind == "engine-record" and material.manifest.stages[record.stage].status == "done"
    ]


def _graph(key: str, title: str, nodes: Sequence[Node], edges: Sequence[tuple[int, int]]) -> Block:
    if len(nodes) > _MOST_NODES:
        return Text(f"{title}: {len(nodes)} nodes are too many to draw; Netron opens the file.", "muted")
    named = [{**node, "name": node["name"][:_LONGEST_NAME]} for node in nodes]
    return Graph(key, f"{title}, {len(nodes)} nodes", {"nodes": named, "edges": list(edges)})


def _output_errors(material: Material) -> dict[str, str]:
    """Per output of the network, how far off it is in each comparison."""
    stage = material.manifest.stages.get("verify")
    lines: dict[str, list[str]] = {}
    for relative in stage.outputs if stage is not None and stage.status == "done" else ():
        comparison = read_json(material.workspace.artifact(relative))
        if comparison.get("format") != formats.VERIFICATION:
            continue
        title = Path(relative).stem.replace("__", " → ")
        for name, values in comparison["outputs"].items():
            exact = not values["noise_energy"]
            text = "exact" if exact else f"SNR {values['snr_db']:.0f} dB, at most {values['max_abs']:.1e} off"
            lines.setdefault(name, []).append(f"{title}: {text}")
    return {name: "; ".join(found) for name, found in lines.items()}


def onnx_graph(
    model: Any, engine: Mapping[str, Any] | None, errors: Mapping[str, str]
) -> tuple[list[Node], list[tuple[int, int]]]:
    """Nodes and edges of an ONNX file.

    Args:
        model: the ``ModelProto``.
        engine: record of the engine that was built from it: which layer a node went into, its precision and time.
        errors: by output, in words.
    """
    layers = _layers_of_nodes(engine)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in weights]
    steps = [node for node in model.graph.node if node.op_type not in _VALUES]
    nodes = [{"op": node.op_type, "name": node_name(node), **layers.get(node_name(node), {})} for node in steps]
    flows = [(list(node.input), list(node.output)) for node in steps]
    return _with_ends(nodes, flows, inputs, [value.name for value in model.graph.output], errors)


def _layers_of_nodes(engine: Mapping[str, Any] | None) -> dict[str, Node]:
    """Per ONNX node, what its layer in the engine computes in, and how long that takes."""
    if engine is None:
        return {}
    times = engine["times_ms"] or {}
    found: dict[str, Node] = {}
    for layer in engine["layers"]:
        fused = len(layer["nodes"])
        for name in layer["nodes"]:
            note = f"engine layer {layer['name']}" + (f", with {fused - 1} more" if fused > 1 else "")
            found[name] = {"precision": layer["precision"], "ms": times.get(layer["name"]), "note": note}
    return found


def engine_graph(record: Mapping[str, Any], errors: Mapping[str, str]) -> tuple[list[Node], list[tuple[int, int]]]:
    """Nodes and edges of an engine, from the record beside it."""
    times = record["times_ms"] or {}
    nodes, flows = [], []
    for layer in record["layers"]:
        tactic = f"tactic {layer['tactic']}" if layer["tactic"] else ""
        ms = times.get(layer["name"])
        nodes.append(
            {"op": layer["kind"], "name": layer["name"], "precision": layer["precision"], "ms": ms, "note": tactic}
        )
        flows.append(([name for name, _ in layer["inputs"]], [name for name, _ in layer["outputs"]]))
    produced = {name for _, outputs in flows for name in outputs}
    consumed = {name for inputs, _ in flows for name in inputs}
    return _with_ends(nodes, flows, sorted(consumed - produced), sorted(produced - consumed), errors)


def _with_ends(
    nodes: list[Node],
    flows: Sequence[tuple[Sequence[str], Sequence[str]]],
    inputs: Iterable[str],
    outputs: Iterable[str],
    errors: Mapping[str, str],
) -> tuple[list[Node], list[tuple[int, int]]]:
    """The nodes with the graph's inputs and outputs added, and the edges between all of them.

    Args:
        nodes: the nodes.
        flows: per node, names of the tensors that it takes and gives.
        inputs, outputs: of the graph.
        errors: by output, in words.
    """
    source = {name: index for index, (_, given) in enumerate(flows) for name in given}
    for name in inputs:
        source.setdefault(name, len(nodes))
        nodes.append({"op": "input", "name": name})
    edges = {(source[name], index) for index, (taken, _) in enumerate(flows) for name in taken if name in source}
    for name in outputs:
        if name in source:
            edges.add((source[name], len(nodes)))
        nodes.append({"op": "output", "name": name, "error": errors.get(name, "")})
    return nodes, sorted(edges)
