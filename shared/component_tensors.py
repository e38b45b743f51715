"""What went into a component, and what came out of it, on the samples of a trace (`shared.traces`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shared.arrays import Arrays
from shared.errors import InputError
from shared.runs import Run
from shared.spec import ComponentSpec, TensorSpec
from shared.staleness import is_current
from shared.traces import TRACES, read_step, step_path, traced_steps
from shared.workspace import Workspace


@dataclass(frozen=True)
class TracedSample:
    """A component on one sample.

    Attributes:
        index: position of the sample in the trace.
        inputs: by name.
        outputs: by name; none where no step of the trace has them all (several steps of ours may be one of it).
    """

    index: int
    inputs: Arrays
    outputs: Arrays


def components_of(workspace: Workspace, name: str | None) -> list[ComponentSpec]:
    """The components of a workspace's model; with a name, that one.

    Raises:
        InputError: there is none of that name.
    """
    components = workspace.spec().components
    chosen = [component for component in components if name in (None, component.name)]
    if not chosen:
        names = ", ".join(component.name for component in components)
        raise InputError(f"no component '{name}'", where=str(workspace.root), hint=f"there are: {names}")
    return chosen


def find_trace(workspace: Workspace, name: str | None) -> Run:
    """A trace of a workspace; with ``name`` None any.

    Raises:
        InputError: none is there, or not that one.
    """
    manifest = workspace.manifest()
    there = sorted(stage.removeprefix("trace:") for stage in manifest.stages if stage.startswith("trace:"))
    current = [each for each in there if name in (None, each) and is_current(manifest, f"trace:{each}", workspace.root)]
    if not current:
        raise InputError(
            f"no current trace{f' {name!r}' if name else ''} with the components' inputs",
            where=str(workspace.root),
            hint=f"make one: runtime trace --work {workspace.root} --backend onnx",
        )
    return Run.open(workspace.path(f"{TRACES}/{current[0]}"))


def traced_samples(workspace: Workspace, trace: Run, component: ComponentSpec, count: int | None) -> list[TracedSample]:
    """A component on the first ``count`` samples of a trace (None: all), but for those without any data (no pillar).

    Raises:
        InputError: the trace does not hold the component's inputs.
        ManifestError: a file was changed.
    """
    samples = []
    for index in range(len(trace) if count is None else min(count, len(trace))):
        steps = _steps(workspace, trace, index)
        inputs = _first_with(component.inputs, steps)
        if inputs and all(array.size for array in inputs.values()):
            samples.append(TracedSample(index, inputs, _first_with(component.outputs, steps)))
    if not samples:
        names = ", ".join(tensor.name for tensor in component.inputs)
        raise InputError(
            f"holds no inputs of {component.name} ({names})",
            where=str(trace.folder),
            hint="trace a model of the same kind, on samples that are not empty",
        )
    return samples


def _steps(workspace: Workspace, trace: Run, index: int) -> Iterator[Arrays]:
    for step in traced_steps(trace).values():
        workspace.artifact(f"{TRACES}/{trace.folder.name}/{step_path(index, step)}")
        yield read_step(trace.folder, index, step)


def _first_with(tensors: Sequence[TensorSpec], steps: Iterator[Arrays]) -> Arrays:
    """The tensors as the first step that has all of them gave them."""
    for arrays in steps:
        if all(tensor.name in arrays for tensor in tensors):
            return {tensor.name: arrays[tensor.name] for tensor in tensors}
    return {}
