"""Polygraphy and the workspace take each other's inputs and outputs: `verifier export` and `verifier compare`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.answer import Answer
from shared.arrays import Arrays
from shared.component_tensors import TracedSample, components_of, find_trace, traced_samples
from shared.errors import InputError, VerificationFailed
from shared.polygraphy_json import read_results, write_inputs, write_results
from shared.spec import ComponentSpec
from shared.table import Table, number
from shared.work_path import WorkPath
from shared.workspace import Workspace
from verifier.bisect.windows import disagrees
from verifier.statistics import OutputStatistics


def export(
    work: Path,
    out: Path,
    *,
    component: str | None = None,
    trace_name: str | None = None,
    num_samples: int | None = None,
) -> str:
    """Write the inputs and outputs of components, as a trace has them, for Polygraphy. Returns what to print.

    Args:
        work: the workspace.
        out: folder for ``<component>.inputs.json`` and ``<component>.outputs.json``.
        component: its name; None: each.
        trace_name: whose inputs and outputs; None: those of any trace.
        num_samples: how many samples; None: all of the trace.

    Raises:
        InputError: no trace, no such component, or a trace that does not hold its inputs and outputs.
    """
    workspace = Workspace.open(work)
    trace = find_trace(workspace, trace_name)
    lines = []
    for each in components_of(workspace, component):
        samples = _with_outputs(workspace, each, trace_name, num_samples)
        inputs, outputs = out / f"{each.name}.inputs.json", out / f"{each.name}.outputs.json"
        WorkPath(out).make_folder()
        write_inputs(inputs, [sample.inputs for sample in samples])
        write_results(outputs, f"awml-deploy {trace.folder.name}", [sample.outputs for sample in samples])
        start = ["polygraphy", "run", str(workspace.onnx(each.onnx))]
        files = ["--load-inputs", str(inputs), "--load-outputs", str(outputs)]
        lines.append(f"{each.name}, {len(samples)} samples:")
        lines += [
            f"  {shlex.join([*start, *runner, *files])}" for runner in (["--onnxrt"], ["--trt", *_profile(samples)])
        ]
    return "\n".join(lines)


def _profile(samples: Sequence[TracedSample]) -> list[str]:
    """Polygraphy's options for engines that take these inputs; without them it builds for sizes of 1."""
    options = []
    for kind, largest in (("min", False), ("opt", True), ("max", True)):
        options.append(f"--trt-{kind}-shapes")
        for name in samples[0].inputs:
            axes = zip(*(sample.inputs[name].shape for sample in samples), strict=True)
            sizes = [max(axis) if largest else min(axis) for axis in axes]
            options.append(f"{name}:[{','.join(map(str, sizes))}]")
    return options


def compare(
    work: Path,
    results: Path,
    limit: float,
    *,
    component: str | None = None,
    trace_name: str | None = None,
) -> Answer:
    """Compare what Polygraphy's runners answered on exported inputs with the trace that these came from.

    Args:
        work: the workspace.
        results: the file that ``polygraphy run --save-outputs`` wrote.
        limit: signal to noise ratio [dB] that every output must have; whole numbers must be equal.
        component: whose outputs these are; None: the one whose outputs have these names.
        trace_name: what is right; None: any trace.

    Returns:
        What to print.

    Raises:
        VerificationFailed: an output is further away, or missing, of another shape, or with other NaN and infinities.
        InputError: no such file or trace, or outputs that are of no component.
    """
    workspace = Workspace.open(work)
    runners = read_results(results)
    if not any(runners.values()):
        raise InputError("holds no outputs", where=str(results), hint="polygraphy run ... --save-outputs FILE.json")
    chosen = _component_of(components_of(workspace, component), runners, str(results))
    samples = _with_outputs(workspace, chosen, trace_name, None)
    tables, failures, compared = [], [], {}
    for runner, iterations in runners.items():
        if len(iterations) > len(samples):
            raise InputError(
                f"{runner} answered {len(iterations)} times, the trace has {len(samples)} samples",
                where=str(results),
                hint=f"run it on what `verifier export --work {work}` wrote",
            )
        table, beyond, statistics = _judge(chosen, runner, samples, iterations, limit)
        compared[runner] = {"samples": len(iterations), "outputs": statistics}
        tables.append(table.text())
        failures += beyond
    text = "\n\n".join(tables)
    data = {"component": chosen.name, "limit_db": limit, "runners": compared, "failures": failures}
    if failures:
        raise VerificationFailed(
            f"{failures[0]} ({len(failures)} in all)",
            where=str(results),
            hint=f"verifier bisect --work {work} --component {chosen.name} names the nodes",
            answer=Answer("\n".join([text, *(f"FAILED {failure}" for failure in failures)]), data),
        )
    return Answer(text, data)


def _with_outputs(
    workspace: Workspace, component: ComponentSpec, trace_name: str | None, count: int | None
) -> list[TracedSample]:
    trace = find_trace(workspace, trace_name)
    samples = traced_samples(workspace, trace, component, count)
    if not all(sample.outputs for sample in samples):
        raise InputError(
            f"holds no outputs of {component.name} ({', '.join(component.output_names())})",
            where=str(trace.folder),
            hint="trace a backend of this tool: runtime trace",
        )
    return samples


def _component_of(components: Sequence[ComponentSpec], runners: dict[str, list[Arrays]], where: str) -> ComponentSpec:
    """The component that has all the outputs that are in the results."""
    names = {name for iterations in runners.values() for outputs in iterations for name in outputs}
    for component in components:
        if names and names <= set(component.output_names()):
            return component
    known = "; ".join(f"{component.name}: {', '.join(component.output_names())}" for component in components)
    raise InputError(
        f"holds outputs {', '.join(sorted(names)) or 'without names'}", where=where, hint=f"there are {known}"
    )


def _judge(
    component: ComponentSpec, runner: str, samples: Sequence[TracedSample], iterations: Sequence[Arrays], limit: float
) -> tuple[Table, list[str], dict[str, Any]]:
    """A runner's outputs as a table, a line for each that is too far away, and the statistics by output."""
    rows, failures, summaries = [], [], {}
    for tensor in component.outputs:
        statistics = OutputStatistics()
        for sample, outputs in zip(samples, iterations, strict=False):
            if tensor.name in outputs:
                statistics.add(sample.index, sample.outputs[tensor.name], outputs[tensor.name])
            else:
                statistics.problems.append(f"sample {sample.index}: output '{tensor.name}' is missing")
        summary: dict[str, Any] = statistics.summary()
        summaries[tensor.name] = summary
        exact = not np.issubdtype(np.dtype(tensor.dtype), np.floating)
        identical = summary["compared"] and summary["noise_energy"] == 0.0
        ratio = "exact" if identical else number(summary["snr_db"], 1)
        rows.append([tensor.name, number(summary["max_abs"], 6), number(summary["worst_cosine"], 6), ratio])
        if disagrees(summary, exact=exact, limit=limit):
            reason = summary["problems"][0] if summary["problems"] else f"SNR {ratio} dB, the limit is {limit:g}"
            failures.append(f"{runner}, {tensor.name}: {reason}")
    title = f"{component.name}: {runner}, {len(iterations)} samples"
    return Table(title, ["output", "max abs", "cosine", "SNR [dB]"], rows), failures, summaries
