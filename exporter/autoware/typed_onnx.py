"""FP16 by the types in the graph, beside an FP32 file: for nodes whose TensorRT takes the types as binding.

Casts are inside, so inputs and outputs keep their types, and a node binds the same buffers. What can't be FP16 stays as
it is (`shared.cast_graph`), as does what reaches the end of its range, recorded by `runtime ranges` or seen here. What
comes out is run in ONNX Runtime beside the file that it was made from.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from exporter.artifacts.checks import open_session
from exporter.artifacts.onnx_export import save
from exporter.autoware.emulated_fp16 import emulate
from shared import cast_graph, onnx_graph
from shared.arrays import Arrays
from shared.errors import ExportError, InputError
from shared.fp16_range import beyond_fp16, largest_of, largest_values, with_largest_values
from shared.runs import Run
from shared.spec import ComponentSpec
from shared.staleness import is_current
from shared.traces import TRACES, read_step, step_path, traced_steps
from shared.workspace import Workspace

if TYPE_CHECKING:
    import onnx

# Least signal to noise ratio of an output [dB], the verifier's for a network in FP16: nothing is broken (an overflow, a
# lost scale). What FP16 costs is for the metric to say. The demo CenterPoint's outputs keep 14 to 29 dB.
LEAST_SNR = 6.0

_RECORD = "record inputs to check the FP16 file on: runtime trace --work … --backend onnx"

# So many nodes that stay in FP32 for one reason are named in a line; all are in the bundle's metadata.
_NAMED = 5

_log = logging.getLogger("exporter")


@dataclass(frozen=True)
class TypedGraph:
    """What became of a graph.

    Attributes:
        fp16_nodes: number of nodes that compute in FP16.
        fp32_nodes: name of each node that stayed in FP32, to the reason.
        checked_on: where the inputs of the check come from.
        snr_db: least signal to noise ratio of an output, against the FP32 file's [dB].
    """

    fp16_nodes: int
    fp32_nodes: Mapping[str, str]
    checked_on: str
    snr_db: float

    def __str__(self) -> str:
        nodes: dict[str, list[str]] = {}
        for node, reason in self.fp32_nodes.items():
            nodes.setdefault(reason, []).append(node)
        kept = "; ".join(f"{_named(names)} ({reason})" for reason, names in nodes.items())
        return (
            f"{self.fp16_nodes} nodes in FP16, {f'{len(self.fp32_nodes)} in FP32: {kept}' if kept else 'all of them'}; "
            f"{self.snr_db:.1f} dB against FP32 on {self.checked_on}"
        )


def _named(nodes: list[str]) -> str:
    """The names of a few nodes, the number of many."""
    return ", ".join(nodes) if len(nodes) <= _NAMED else f"{len(nodes)} nodes"


def write_typed_onnx(source: Path, target: Path, workspace: Workspace, component: ComponentSpec) -> TypedGraph:
    """Write the FP16 file of a component, and prove it.

    Args:
        source: the FP32 file.
        target: the file to write.
        workspace: where ranges and traces of the component are, if any.
        component: which.

    Raises:
        ExportError: it computes something else than the FP32 file.
        InputError: there is nothing to check it on.
    """
    model = onnx_graph.load(source)
    inputs, checked_on = _inputs(workspace, component)
    largest = _largest(model, inputs, component.name)
    for name, value in largest_values(workspace, component).items():
        largest[name] = max(value, largest.get(name, 0.0))
    lowered, report = cast_graph.lower(model, "fp16", keep=beyond_fp16(model, largest))
    save(lowered, target)
    open_session(target, component.name)
    snr = _compare(model, lowered, component, inputs)
    for node, reason in report.kept.items():
        _log.debug("%s: %s stays in FP32: %s", component.name, node, reason)
    return TypedGraph(report.low, dict(report.kept), checked_on, snr)


def _run(model: onnx.ModelProto, inputs: Arrays, where: str) -> dict[str, npt.NDArray[Any]]:
    """All outputs of a graph, by name.

    Raises:
        ExportError: ONNX Runtime doesn't load it.
    """
    names = [output.name for output in model.graph.output]
    session = open_session(model.SerializeToString(), where)
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def _largest(model: onnx.ModelProto, inputs: Arrays, where: str) -> dict[str, float]:
    return largest_of(_run(with_largest_values(model), inputs, where))


def _compare(model: onnx.ModelProto, typed: onnx.ModelProto, component: ComponentSpec, inputs: Arrays) -> float:
    """The least signal to noise ratio of an output [dB].

    Raises:
        ExportError: it is below `LEAST_SNR`.
    """
    wanted, got = (_run(each, inputs, component.name) for each in (model, emulate(typed)))
    worst = math.inf
    for name in component.output_names():
        snr = signal_to_noise(got[name], wanted[name])
        # Written so that NaN fails.
        if not snr >= LEAST_SNR:
            raise ExportError(
                f"in FP16, '{name}' has {snr:.1f} dB against the FP32 file, {LEAST_SNR:g} are wanted",
                where=component.name,
                hint="use --precision fp32; `verifier bisect --precision fp16` finds the nodes that lose it",
            )
        worst = min(worst, snr)
    return worst


def signal_to_noise(values: npt.NDArray[Any], reference: npt.NDArray[Any]) -> float:
    """Power of the reference over that of the difference [dB]; infinite for equal values, NaN where a value is."""
    exact = reference.astype(np.float64)
    noise = np.square(values - exact).sum()
    if noise == 0:
        return math.inf
    with np.errstate(divide="ignore"):  # no signal, or infinite noise
        return float(10 * np.log10(np.square(exact).sum() / noise))


def _inputs(workspace: Workspace, component: ComponentSpec) -> tuple[Arrays, str]:
    """Inputs of a component, and where they come from: the first sample of a trace, or else random numbers."""
    manifest = workspace.manifest()
    names = [tensor.name for tensor in component.inputs]
    traces = sorted(name for name in manifest.stages if name.startswith("trace:"))
    for stage in (name for name in traces if is_current(manifest, name, workspace.root)):
        trace = Run.open(workspace.path(f"{TRACES}/{stage.removeprefix('trace:')}"))
        for step in traced_steps(trace):
            workspace.artifact(f"{TRACES}/{trace.folder.name}/{step_path(0, step)}")
            arrays = read_step(trace.folder, 0, step)
            if all(name in arrays and arrays[name].size for name in names):
                return {name: arrays[name] for name in names}, f"{TRACES}/{trace.folder.name}"
    return _random_inputs(component, _profile(workspace, component)), "random numbers"


def _profile(workspace: Workspace, component: ComponentSpec) -> Mapping[str, Any]:
    """The optimization profile in the deploy config, by input; empty where the model spec has all sizes."""
    settings: Mapping[str, Any] = workspace.config().get("components", {}).get(component.name, {})
    profile: Mapping[str, Any] = settings.get("tensorrt_profile", {})
    return profile


def _random_inputs(component: ComponentSpec, profile: Mapping[str, Any]) -> dict[str, Any]:
    """Standard normal inputs of typical sizes.

    Raises:
        InputError: neither the profile nor the model spec says how large the dynamic axes are, or an input is of
            whole numbers.
    """
    indices = next((tensor.name for tensor in component.inputs if np.dtype(tensor.dtype).kind != "f"), None)
    if indices is not None:
        raise InputError(
            f"'{indices}' says where values belong, which random numbers don't", where=component.name, hint=_RECORD
        )
    random = np.random.default_rng(0)
    typical = {"batch_size": 1, **{name: sizes.opt for name, sizes in component.axes.items()}}  # nodes feed one sample
    inputs = {}
    for tensor in component.inputs:
        shape = profile.get(tensor.name, {}).get("opt_shape") or [
            size if isinstance(size, int) else typical.get(size, size) for size in tensor.shape
        ]
        if any(isinstance(size, str) for size in shape):
            raise InputError(
                f"how large '{tensor.name}' {shape} typically is, is not known", where=component.name,
                hint=_RECORD,
            )  # fmt: skip
        inputs[tensor.name] = random.standard_normal(shape).astype(tensor.dtype)
    return inputs
