"""`runtime swap`: a backend that takes over from a trace, after each of its steps in turn.

For the steps s1 ... sN of a trace (the reference) and a backend (the test), run k uses the reference for s1 ... s(k-1)
and the test from sk on. Consecutive runs differ in who does one step, so the difference of their metrics is what that
step costs, and the differences add up to the whole loss. On disk, for `verifier attribute`::

    swaps/<test>/reference/      the reference's predictions
    swaps/<test>/<step>/         the predictions when the test takes over at this step; beside them, where they differ,
      steps/000003/test.npz        what the test made of the reference's input of this step
      steps/000003/reference.npz   and what the reference did
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from runtime.model import Model, ModelOptions, open_model
from runtime.pipeline import Step, run_steps, steps_of
from shared import plugins
from shared.arrays import Arrays
from shared.errors import InputError
from shared.progress import track
from shared.runs import Run, RunWriter
from shared.staleness import is_current
from shared.traces import TRACES, read_step, step_path, traced_steps, write_step
from shared.work_path import WorkPath
from shared.workspace import Workspace

if TYPE_CHECKING:
    from typing_extensions import Unpack

SWAPS = "swaps"
REFERENCE = "reference"


@dataclass(frozen=True)
class Segment:
    """What is swapped as one: the steps of the test that lead from one kept state of the reference to the next.

    Attributes:
        name: the steps, joined by ``+``; one step where the reference kept every state.
        steps: of the test.
    """

    name: str
    steps: list[Step]

    @property
    def last(self) -> Step:
        """The step after which the reference kept its state."""
        return self.steps[-1]


@dataclass(frozen=True)
class Reference:
    """A trace, checked against the manifest of its workspace."""

    workspace: Workspace
    folder: str
    run: Run

    def state(self, index: int, step: str) -> Arrays:
        """What ``step`` gave for a sample."""
        recorded = traced_steps(self.run)[step]
        self.workspace.artifact(f"{self.folder}/{step_path(index, recorded)}")
        return read_step(self.run.folder, index, recorded)


def swap(
    work: Path,
    backend_name: str,
    device: str,
    trace_name: str,
    *,
    trace_work: Path | None = None,
    force: bool = False,
    **options: Unpack[ModelOptions],
) -> str:
    """Run a backend from every step of a trace on. Interrupted, the next call goes on. Returns what to print.

    Args:
        work, backend_name, device, options: of the test, see `runtime.model.open_model`.
        trace_name: name of the reference's trace, as in ``pytorch-cpu``.
        trace_work: the workspace that holds it, when not the same.
        force: run afresh, whatever is there.

    Raises:
        InputError: no such trace, or one of another model, data set or other steps.
    """
    in_numpy: ModelOptions = {**options, "steps": "numpy"}
    model = open_model(work, backend_name, device, **in_numpy)
    reference = open_trace(trace_work or work, trace_name)
    count = len(reference.run)
    stage = model.stage("swap", {"reference": trace_name}, {"trace": reference.run.header.fingerprint})
    relative = f"{SWAPS}/{model.name}"
    if not force and stage.up_to_date():
        return f"{stage.name}: up to date, {relative}"
    with stage:
        _, pipeline = model.load()
        segments = split(steps_of(pipeline, model.spec.model), list(traced_steps(reference.run)), trace_name)
        names = [segment.name for segment in segments]
        details = {"steps": names, "reference": trace_name, "other_workspace": trace_work is not None}
        header = model.header(range(count), stage.fingerprint, details)
        _check_same_subject(reference.run, header.model, header.classes, header.dataset, header.tokens)
        folder = stage.folder(relative)
        writers = {name: RunWriter.open(folder / name, header, resume=not force) for name in (*names, REFERENCE)}
        left = sorted({index for writer in writers.values() for index in writer.missing()})
        for index in track(left, stage.name, total=len(left)):
            _swap_sample(model, reference, segments, index, folder, writers)
        for name, writer in writers.items():
            for file in writer.finish():
                stage.add_artifact(f"{relative}/{name}/{file}", "swap")
            for sample in (folder / name / "steps").names():
                for file in (folder / name / "steps" / sample).names():
                    stage.add_artifact(f"{relative}/{name}/steps/{sample}/{file}", "swap")
    return f"{stage.name}: done, {count} samples, {len(names)} steps swapped one after another: {', '.join(names)}"


def open_trace(work: Path, name: str) -> Reference:
    """The trace ``name`` of a workspace.

    Raises:
        InputError: there is none, or it is of an earlier export.
        ManifestError: a file was changed.
    """
    workspace = Workspace.open(work)
    manifest = workspace.manifest()
    folder = f"{TRACES}/{name}"
    stage = f"trace:{name}"
    if f"{folder}/run.json" not in manifest.artifacts or not is_current(manifest, stage, work):
        there = sorted(other.removeprefix("trace:") for other in manifest.stages if other.startswith("trace:"))
        raise InputError(
            f"no current trace '{name}'; there are: {', '.join(there) or 'none'}",
            where=str(work),
            hint=f"make it: {_command_for(name)} --work {work}",
        )
    for relative in manifest.stages[stage].outputs:
        if Path(relative).parent == Path(folder):
            workspace.artifact(relative)
    return Reference(workspace, folder, Run.open(workspace.path(folder)))


def _command_for(name: str) -> str:
    backend = name.partition("-")[0]
    if backend == "framework":
        return "exporter trace"
    return f"runtime trace --backend {backend if backend in plugins.available(plugins.BACKENDS) else 'NAME'}"


def split(steps: Sequence[Step], kept: Sequence[str], trace_name: str) -> list[Segment]:
    """The steps of the test, cut where the reference kept a state.

    Raises:
        InputError: the reference has other steps, or another order or end.
    """
    names = [step.name for step in steps]
    positions = [names.index(name) if name in names else -1 for name in kept]
    if not kept or min(positions) < 0 or positions != sorted(set(positions)) or positions[-1] != len(steps) - 1:
        raise InputError(
            f"the trace has the steps {', '.join(kept) or 'none'}, this model has {', '.join(names)}",
            where=f"{TRACES}/{trace_name}",
            hint="trace a model of the same kind, with this version",
        )
    starts = [0, *(position + 1 for position in positions[:-1])]
    return [
        Segment("+".join(names[start : end + 1]), list(steps[start : end + 1]))
        for start, end in zip(starts, positions, strict=True)
    ]


def _check_same_subject(reference: Run, model: str, classes: list[str], dataset: str, tokens: list[str]) -> None:
    header = reference.header
    for what, theirs, ours in (
        ("model", header.model, model),
        ("classes", header.classes, classes),
        ("data set", header.dataset, dataset),
        ("samples", header.tokens, tokens),
    ):
        if theirs != ours:
            raise InputError(
                f"the trace is of another {what} than this workspace",
                where=str(reference.folder),
                hint="trace the same kind of model on the same data",
            )


def _swap_sample(
    model: Model,
    reference: Reference,
    segments: Sequence[Segment],
    index: int,
    folder: WorkPath,
    writers: dict[str, RunWriter],
) -> None:
    """All swapped runs of one sample, from the last step to the first: a step that gives what the reference gave, bit
    for bit, has the predictions of the run after it."""
    states = {segment.name: reference.state(index, segment.last.name) for segment in segments}
    predictions = segments[-1].last.packing.unpack(states[segments[-1].name])
    writers[REFERENCE].commit(index, predictions, {})
    for number in reversed(range(len(segments))):
        segment, before = segments[number], segments[number - 1]
        start = before.last.packing.unpack(states[before.name]) if number else model.dataset.sample(index)
        state = run_steps(segment.steps, start)
        ours, theirs = segment.last.packing.pack(state), states[segment.name]
        if not _identical(ours, theirs):
            write_step(folder / segment.name, index, "test", ours)
            write_step(folder / segment.name, index, REFERENCE, theirs)
            for later in segments[number + 1 :]:
                state = run_steps(later.steps, state)
            predictions = state
        writers[segment.name].commit(index, predictions, {})


def _identical(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(_same_bits(one[name], other[name]) for name in one)


def _same_bits(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()
