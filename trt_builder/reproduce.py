"""`trt_builder reproduce`: a failed build, or nodes with wrong results, as a folder that an issue at NVIDIA can have.

The graph is cut down as `verifier bisect` cuts it: consecutive nodes with what enters them as inputs
(`shared.onnx_windows`). A part counts as failing where TensorRT gives the same reason for it as for the whole.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from shared import cast_graph, onnx_graph, provenance
from shared.arrays import Arrays, read_arrays
from shared.errors import InputError
from shared.files import atomic_path, write_bytes, write_text
from shared.lazy import lazy_import
from shared.onnx_windows import Graph, node_title
from shared.polygraphy_json import write_inputs, write_results
from shared.staleness import is_current
from shared.work_path import WorkPath
from shared.workspace import Workspace
from trt_builder import policies
from trt_builder import target as targets
from trt_builder.build_plan import plan_build, read_config
from trt_builder.jobs import Job
from trt_builder.replay import Replay
from trt_builder.target import Target
from trt_builder.trial import Failure, Options, Trial, smallest

if TYPE_CHECKING:
    import onnx

    from shared.config.tensorrt_section import TensorRT as Section
else:
    onnx = lazy_import("onnx")
onnx_reference = lazy_import("onnx.reference")

_log = logging.getLogger("reproduce")


def reproduce(
    work: Path, out: Path, *, component: str | None, bisected: bool, target: str, overrides: Sequence[str]
) -> str:
    """Write a folder for each case below ``out``. Returns what to print.

    Args:
        work: the workspace.
        out: where to.
        component: its name; None: each.
        bisected: take the nodes that `verifier bisect` found; else the first component whose build fails.
        target: ``auto``, ``tensorrt`` or ``rtx``.
        overrides: ``key=value`` changes to the config in the manifest.

    Raises:
        InputError: every component builds, or nothing was found by bisection; no such component.
        EnvironmentLacks: no TensorRT or no GPU here.
    """
    ws = Workspace.open(work)
    this_target = targets.find(target)
    config = read_config(ws, overrides)
    jobs = [job for job in plan_build(ws, config, this_target).jobs if component in (None, job.component)]
    if not jobs:
        raise InputError(f"no component '{component}'", where=str(work))
    options = config.tensorrt
    if bisected:
        made = [case for job in jobs for case in _bisected(ws, job, out, this_target, options)]
        hint = "find them first: verifier bisect --runner-command (docs/verification.md)"
    else:
        made = [case for job in jobs for case in _failing(job, out, this_target, options)]
        hint = "nodes with wrong results: verifier bisect, and --bisected here"
    if not made:
        why = "no nodes were found" if bisected else "it builds at the typical sizes of its inputs"
        raise InputError(f"nothing to reproduce: {why}", where=str(work), hint=hint)
    return "\n".join(f"{folder}: {what}" for folder, what in made)


def _failing(job: Job, out: Path, target: Target, options: Section) -> list[tuple[Path, str]]:
    graph = Graph.load(job.onnx)
    how = Options(
        "rtx" if target.tensorrt.flavor == "rtx" else "tensorrt",
        job.policy.policy.name,
        job.policy.keep,
        options.optimization_level,
        options.tactic_sources != (),
    )
    values = _values(graph, job)

    def window(first: int, last: int) -> tuple[Any, Arrays] | None:
        """The nodes ``[first, last)`` with something to go into them; None where no shape is known for that."""
        entering, leaving = graph.boundary(first, last)
        if not leaving or any(name not in values for name in entering):
            return None
        inputs = {name: values[name] for name in entering}
        return graph.window(first, last, [inputs], leaving), inputs

    with Trial(how) as trial:

        def failure(first: int, last: int) -> Failure | None:
            part = window(first, last)
            found = None if part is None else trial.failure(*part)
            _log.info("%s: nodes %d to %d %s", job.component, first, last - 1, "fail" if found else "don't fail")
            return found

        whole = failure(0, len(graph.nodes))
        if whole is None:
            return []
        nodes = smallest(len(graph.nodes), lambda first, last: whole.is_like(failure(first, last)))
    model, inputs = window(nodes.start, nodes.stop) or (graph.model, values)
    title = f"{len(nodes)} of {len(graph.nodes)} nodes fail to build: {whole.message}"
    folder = out / job.component
    _write_case(folder, model, inputs, _expected(model, inputs), title, job, target, options)
    return [(folder, title)]


def _bisected(ws: Workspace, job: Job, out: Path, target: Target, options: Section) -> list[tuple[Path, str]]:
    manifest, stage, made = ws.manifest(), f"bisect:{job.component}", []
    if stage not in manifest.stages or not is_current(manifest, stage, ws.root):
        return []
    prefix = f"bisect/{job.component}."
    for relative in sorted(manifest.stages[stage].outputs):
        if not relative.endswith(".onnx"):
            continue
        model = onnx_graph.load(ws.artifact(relative))
        inputs, expected = (
            read_arrays(ws.artifact(f"{relative.removesuffix('.onnx')}.{kind}.npz")) for kind in ("inputs", "expected")
        )
        names = ", ".join(node_title(node) for node in model.graph.node if node.op_type != "Constant")
        title = f"other results than ONNX Runtime gives: {names}"
        folder = out / f"{job.component}-{relative.removeprefix(prefix).removesuffix('.onnx')}"
        _write_case(folder, model, inputs, expected, title, job, target, options)
        made.append((folder, title))
    return made


def _values(graph: Graph, job: Job) -> Arrays:
    """Something of the right type and shape for every tensor whose shape follows from the inputs' typical sizes."""
    shapes = {given.name: given.shape for given in onnx_graph.graph_inputs(graph.model)}
    for name, sizes in (job.profiles[0] if job.profiles else {}).items():
        shapes[name] = sizes.opt
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    for value in model.graph.input:
        for axis, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
            axis.dim_value = int(size)
    # What the exporter wrote down between the nodes is of dynamic sizes, and inference would keep it.
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    rng = np.random.default_rng(0)
    values = {}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        axes = value.type.tensor_type.shape.dim
        kind = graph.element_type(value.name)
        if kind is not None and value.type.tensor_type.HasField("shape") and all(axis.dim_value for axis in axes):
            drawn = rng.standard_normal([axis.dim_value for axis in axes])
            values[value.name] = np.asarray(drawn if np.issubdtype(kind, np.floating) else np.zeros_like(drawn), kind)
    return values


def _expected(model: onnx.ModelProto, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays | None:
    """What the ONNX project's own evaluator computes; None where it can't."""
    names = [value.name for value in model.graph.output]
    try:
        evaluator = onnx_reference.ReferenceEvaluator(model)
        return dict(zip(names, evaluator.run(names, dict(inputs)), strict=True))
    # Each operator is a Python function of its own, which raises what it raises.
    except Exception as error:  # noqa: BLE001
        _log.info("no expected outputs: ONNX's reference evaluator fails (%s: %s)", type(error).__name__, error)
        return None


def _write_case(
    folder: Path,
    model: onnx.ModelProto,
    inputs: Mapping[str, npt.NDArray[Any]],
    expected: Arrays | None,
    title: str,
    job: Job,
    target: Target,
    options: Section,
) -> None:
    quantized = onnx_graph.is_quantized(model)
    policy = job.policy.policy
    if policy.quantized and not quantized:
        policy = policies.POLICIES["fp16"]
    keep = [name for name in map(onnx_graph.node_name, model.graph.node) if name in job.policy.keep]
    if policy.low and not target.tensorrt.weakly_typed:
        model, _ = cast_graph.lower(model, policy.low, keep=dict.fromkeys(keep, "as in the whole graph"))
    replay = Replay(
        target.tensorrt, policy, keep, quantized, options.tactic_sources != (), options.optimization_level, list(inputs)
    )
    WorkPath(folder).make_folder()
    with atomic_path(folder / "model.onnx") as path:
        onnx.save(model, str(path))
    for position, array in enumerate(inputs.values()):
        write_bytes(folder / f"{position}.bin", np.ascontiguousarray(array).tobytes())
    write_inputs(folder / "inputs.json", [inputs])
    if expected is not None:
        write_results(folder / "expected.json", "expected", [expected])
    write_text(folder / "README.md", _readme(title, job, target, replay, model, expected is not None))


def _readme(title: str, job: Job, target: Target, replay: Replay, model: onnx.ModelProto, expected: bool) -> str:
    gpu, driver = provenance.gpu()
    nodes = "\n".join(
        f"- `{node_title(node)}` ({node.op_type})" for node in model.graph.node if node.op_type != "Constant"
    )
    versions = provenance.package_versions(("onnx", "numpy"))
    rows = {
        "TensorRT": f"{target.tensorrt.title}, for {target.architecture}",
        "GPU, driver": f"{gpu or 'none'}, {driver or 'none'}",
        **{name.capitalize(): version for name, version in versions.items()},
        "precision": replay.policy.name,
        "component": job.component,
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    compared = "`expected.json` has what it should give." if expected else "What it should give is not known."
    return (
        f"# {title}\n\n| | |\n| --- | --- |\n{table}\n\n`model.onnx`:\n\n{nodes}\n\n"
        f"`inputs.json` and `*.bin` have its inputs. {compared}\n\n"
        f"```\n{replay.trtexec()}\n{replay.polygraphy(expected=expected)}\n```\n"
    )
