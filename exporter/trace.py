"""`exporter trace`: the training framework step by step, as a trace that a backend can be swapped into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exporter import models, traces
from exporter.checkpoints import checkpoint_digest
from exporter.quantized_model import load_model, quantized_input
from exporter.training_config import read_training_config
from exporter.versions import stage_versions
from shared.config import from_resolved
from shared.data import open_dataset
from shared.errors import ConfigError, InputError
from shared.progress import track
from shared.runs import RunHeader, RunWriter
from shared.traces import TRACES, step_path, write_step
from shared.trust import require_training_config
from shared.workspace import Workspace

NAME = "framework-cpu"

_PACKAGES = ("torch", "mmengine", "mmdet", "mmdet3d", "mmcv", "mmcv-lite", "numpy")


def trace(work: Path, *, num_samples: int | None = None, data_root: Path | None = None, force: bool = False) -> str:
    """Run the framework on the first samples and keep what flows between its parts.

    Args:
        work: a workspace with an exported model.
        num_samples: how many samples; None: as many as are verified.
        data_root: where the data set lies, when not where the config says.
        force: trace although nothing changed.

    Returns:
        What to print.

    Raises:
        UsageError: not for this kind of model.
        ConfigError: the workspace was made without a training config or checkpoint.
        InputError: these are others now than when the model was exported, or that was elsewhere and is not trusted.
        ModelLoadError: the checkpoint is missing or does not fit.
    """
    workspace = Workspace.open(work)
    spec = workspace.spec()
    config = from_resolved(workspace.config(), str(work))
    tracer, adapter = traces.find(spec.model), models.find(spec.model)
    if config.model.config is None or config.model.checkpoint is None:
        raise ConfigError("the model was exported without a training config or checkpoint", where=str(work))
    inputs = {"checkpoint": checkpoint_digest(config.model.checkpoint)}
    inputs |= quantized_input(config, workspace, f"--config … --work {work}")
    _check_same_model(workspace, inputs)
    require_training_config(work, config.model.config)
    training = read_training_config(config.model.config).with_data_classes(config.data.classes)
    inputs["training_config"] = training.digest
    _check_same_model(workspace, inputs)
    dataset = open_dataset(config.data, root=data_root, task=spec.task)
    count = min(config.verification.num_verify_samples if num_samples is None else num_samples, len(dataset))
    stage = workspace.stage(
        f"trace:{NAME}",
        tool="exporter",
        config={"num_samples": count, "options": dict(config.model.options)},
        inputs={**inputs, "dataset": dataset.digest()},
        versions=stage_versions(_PACKAGES, config),
    )
    if not force and stage.up_to_date():
        return f"{stage.name}: up to date, {TRACES}/{NAME}"
    with stage:
        options = adapter.read_options(config.model.options)
        model: Any = models.build(adapter, training, options)
        load_model(model, config, workspace)
        header = RunHeader(
            backend="framework",
            device="cpu",
            model=spec.model,
            task=spec.task,
            classes=list(spec.classes),
            dataset=dataset.digest(),
            tokens=[dataset.sample(index).token for index in range(count)],
            raw_samples=[],
            fingerprint=stage.fingerprint,
            details={"steps": list(tracer.STEPS)},
        )
        folder = stage.folder(f"{TRACES}/{NAME}")
        writer = RunWriter.open(folder, header, resume=not force)
        left = writer.missing()
        for index in track(left, stage.name, total=len(left)):
            model_input = models.load_input(adapter, training, dataset.sample(index), spec.parameters)
            states, predictions = tracer.states(model, model_input, spec.parameters)
            for step in tracer.STEPS:
                write_step(folder, index, step, states[step])
            writer.commit(index, predictions, {})
        files = writer.finish() + [step_path(index, step) for index in range(count) for step in tracer.STEPS]
        for name in files:
            stage.add_artifact(f"{TRACES}/{NAME}/{name}", "trace")
    return f"{stage.name}: done, {count} samples, states after {', '.join(tracer.STEPS)}"


def _check_same_model(workspace: Workspace, inputs: dict[str, str]) -> None:
    """Raises InputError when the files are others than those that were exported."""
    exported = workspace.manifest().stages["export"].key.get("inputs", {})
    for name, digest in inputs.items():
        if exported.get(name) != digest:
            raise InputError(
                f"the {name.replace('_', ' ')} is another than the one that was exported",
                where=str(workspace.root),
                hint="export again, then trace",
            )
