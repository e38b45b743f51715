"""`runtime trace`: a backend over the verification samples, with every step's output kept (`shared.traces`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.model import Model, ModelOptions, open_model
from runtime.pipeline import Step, steps_of
from shared.errors import UsageError
from shared.progress import track
from shared.runs import RunWriter
from shared.traces import TRACES, step_path, write_step
from shared.work_path import WorkPath

if TYPE_CHECKING:
    from typing_extensions import Unpack


def trace(
    work: Path,
    backend_name: str,
    device: str,
    *,
    num_samples: int | None = None,
    force: bool = False,
    **options: Unpack[ModelOptions],
) -> str:
    """Run a backend step by step and keep what each step gives. Interrupted, the next call goes on.

    Returns what to print.

    Args:
        work, backend_name, device, options: see `runtime.model.open_model`.
        num_samples: how many samples, from the first; None: as many as are verified.
        force: run afresh, whatever is there.
    """
    in_numpy: ModelOptions = {**options, "steps": "numpy"}
    model = open_model(work, backend_name, device, **in_numpy)
    count = sample_count(model, num_samples)
    stage = model.stage("trace", {"num_samples": count})
    relative = f"{TRACES}/{model.name}"
    if not force and stage.up_to_date():
        return f"{stage.name}: up to date, {relative}"
    with stage:
        _, pipeline = model.load()
        steps = steps_of(pipeline, model.spec.model)
        header = model.header(range(count), stage.fingerprint, {"steps": [step.name for step in steps]})
        folder = stage.folder(relative)
        writer = RunWriter.open(folder, header, resume=not force)
        left = writer.missing()
        for index in track(left, stage.name, total=len(left)):
            writer.commit(index, _run_and_keep(steps, model.dataset.sample(index), folder, index), {})
        names = writer.finish() + [step_path(index, step.name) for index in range(count) for step in steps]
        for name in names:
            stage.add_artifact(f"{relative}/{name}", "trace")
    return f"{stage.name}: done, {count} samples, {len(steps)} steps each: {', '.join(step.name for step in steps)}"


def _run_and_keep(steps: list[Step], sample: Any, folder: WorkPath, index: int) -> Any:
    """The predictions for one sample; what each step gives is written on the way."""
    state = sample
    for step in steps:
        state = step.run(state)
        write_step(folder, index, step.name, step.packing.pack(state))
    return state


def sample_count(model: Model, asked: int | None) -> int:
    """How many samples are run step by step.

    Raises:
        UsageError: less than one.
    """
    wanted = model.config.verification.num_verify_samples if asked is None else asked
    if wanted < 1:
        raise UsageError(f"--num-samples {wanted}", hint="give at least 1")
    return min(wanted, len(model.dataset))
