"""`runtime trace`: a backend over the verification samples, with every step's output kept (`shared.traces`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtime.model import Model, open_model
from runtime.steps import Step, steps_of
from shared.errors import UsageError
from shared.progress import track
from shared.runs import RunHeader, RunWriter
from shared.traces import TRACES, step_path, write_step


def trace(
    work: Path,
    backend_name: str,
    device: str,
    *,
    num_samples: int | None = None,
    data_root: Path | None = None,
    threads: int | None = None,
    target: str | None = None,
    force: bool = False,
) -> str:
    """Run a backend step by step and keep what each step gives. Interrupted, the next call goes on.

    Args:
        work: the workspace, with an exported model.
        backend_name: name of the backend.
        device: cpu, cuda, cuda:N, or an alias of the config.
        num_samples: how many samples, from the first; None: as many as are verified.
        data_root: where the data set lies, when not where the config says.
        threads: threads within an operation, None for the backend's default.
        target: set of engines, None for the one that fits.
        force: run afresh, whatever is there.

    Returns:
        What a user wants to see of it, as text.
    """
    model = open_model(work, backend_name, device, data_root, threads, target=target, steps="numpy")
    count = sample_count(model, num_samples)
    stage = model.workspace.stage(
        f"trace:{model.name}",
        tool="runtime",
        config={**model.settings(), "num_samples": count},
        inputs=model.inputs(),
        versions=model.versions(),
    )
    relative = f"{TRACES}/{model.name}"
    if not force and stage.up_to_date():
        return f"{stage.name}: up to date, {relative}"
    with stage:
        session, _ = model.load()
        steps = steps_of(model.spec, session)
        header = staged_header(model, count, stage.fingerprint, {"steps": [step.name for step in steps]})
        folder = model.workspace.path(relative)
        writer = RunWriter.open(folder, header, resume=not force)
        left = writer.missing()
        for index in track(left, stage.name, total=len(left)):
            writer.commit(index, _run_and_keep(steps, model.dataset.sample(index), folder, index), {})
        names = writer.finish() + [step_path(index, step.name) for index in range(count) for step in steps]
        for name in names:
            stage.add_artifact(f"{relative}/{name}", "trace")
    return f"{stage.name}: done, {count} samples, {len(steps)} steps each: {', '.join(step.name for step in steps)}"


def _run_and_keep(steps: list[Step], sample: Any, folder: Path, index: int) -> Any:
    """The predictions for one sample; what each step gives is written on the way."""
    state = sample
    for step in steps:
        state = step.run(state)
        write_step(folder, index, step.name, step.pack(state))
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


def staged_header(model: Model, count: int, fingerprint: str, details: dict[str, Any]) -> RunHeader:
    """The header of a run of the first ``count`` samples that is none of the ordinary ones."""
    return RunHeader(
        backend=model.backend,
        device=str(model.device),
        model=model.spec.model,
        task=model.spec.task,
        classes=list(model.spec.classes),
        dataset=model.dataset.digest(),
        tokens=[model.dataset.sample(index).token for index in range(count)],
        raw_samples=[],
        fingerprint=fingerprint,
        details=details,
    )
