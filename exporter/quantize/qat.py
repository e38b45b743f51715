"""Quantization-aware training of a calibrated model: a loop for users without a training set-up of mmengine.

The model is fine-tuned as it will run: frozen layers round inputs and weights to int8 steps, and PyTorch's fake
quantization passes gradients straight through the rounding, none where an activation lies outside its range. Ranges of
activations stay as calibrated, those of weights follow the weights. Batch norms are folded or stay as they are: their
statistics belong to the weights that are rounded.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from exporter import models
from exporter.checkpoints import checkpoint_digest
from exporter.devices import resolved_device, torch_device
from exporter.quantize.calibrate import CalibrationManager
from exporter.quantize.checkpoint import RECORD, load_ptq_model, record_of, save_ptq_model
from exporter.quantize.frozen import freeze, frozen_layers, quantized_layers, scale_of
from exporter.quantize.layers import select
from exporter.quantize.ptq import FOLDER, PACKAGES
from exporter.quantize.residual import share_scales
from exporter.quantize.session import Session, open_model, sources
from exporter.quantize.settings import method_of, settings_key
from exporter.training import Losses, Trainable, label_map, one_cycle, trainable
from exporter.training_config import checkpoint_of, training_config_of
from exporter.versions import stage_versions
from shared.config import load_config, part
from shared.data import Dataset
from shared.errors import ConfigError, InputError, TrainingError
from shared.files import atomic_path, copy
from shared.logs import event
from shared.progress import track
from shared.work_path import WorkPath
from shared.workspace import Workspace

STAGE = "quantize:qat"
CHECKPOINT, LOSSES, STATE = (f"{FOLDER}/{name}" for name in ("qat.pth", "qat_losses.json", "qat_training.pth"))

BETAS = (0.9, 0.99)
WEIGHT_DECAY = 0.01
MAX_GRADIENT_NORM = 10.0
# So often in a training its losses are logged, and its state is saved.
_REPORTS = 20

_log = logging.getLogger("exporter")


@dataclass(frozen=True)
class Plan:
    """How a model is fine-tuned.

    Attributes:
        steps: of the optimizer.
        batch_size: samples a step.
        learning_rate: the greatest; it rises over the first 30 % of the steps and falls to nothing by the last.
        seed: of order and augmentation.
    """

    steps: int
    batch_size: int
    learning_rate: float
    seed: int = 0


@dataclass(frozen=True)
class Training:
    """Samples and losses of a training.

    Attributes:
        model: what is trained.
        trainable: how its kind is trained.
        dataset: labeled samples.
        parameters: those of the model spec.
        labels: label of the data set to label of the model.
    """

    model: Any
    trainable: Trainable
    dataset: Dataset[Any]
    parameters: Mapping[str, Any]
    labels: Mapping[int, int]

    def losses(self, plan: Plan, step: int) -> Losses:
        """The losses of a step's samples; empty where none can be learned from. Depends on the arguments alone.

        Raises:
            InputError: a sample has no labels, or its files are broken.
        """
        items = []
        for position in range(step * plan.batch_size, (step + 1) * plan.batch_size):
            epoch, place = divmod(position, len(self.dataset))
            index = int(np.random.default_rng([plan.seed, epoch]).permutation(len(self.dataset))[place])
            rng = np.random.default_rng([plan.seed, epoch, index])
            item = self.trainable.load(self.model, self.dataset.sample(index), self.parameters, self.labels, rng)
            if item is not None:
                items.append(item)
        return self.trainable.losses(self.model, items) if items else {}


def qat(
    config_path: Path,
    work: Path,
    overrides: Sequence[str] = (),
    *,
    epochs: int = 10,
    steps: int | None = None,
    learning_rate: float = 1e-5,
    batch_size: int = 4,
    seed: int = 0,
    skip: Sequence[str] = (),
    device: str = "cpu",
    data_root: Path | None = None,
    output: Path | None = None,
    force: bool = False,
) -> str:
    """Calibrate and fine-tune the model of a deploy config: ``quantized/qat.pth`` in the workspace.

    Args:
        config_path: the deploy config; the model is calibrated and trained on ``quantization.calibration.data``.
        work: the workspace; made when it is not there.
        overrides: ``key=value`` for the config.
        epochs: how often the data is gone through.
        steps: of the optimizer, instead of epochs.
        learning_rate: the greatest.
        batch_size: samples a step.
        seed: of order and augmentation.
        skip: layers to leave in float, beside the config's.
        device: where to train: cpu, cuda, or an alias of the config.
        data_root: where the section ``data`` lies, when not where the config says.
        output: copy the checkpoint there.
        force: although nothing changed, and from the beginning.

    Returns:
        What to print.

    Raises:
        ConfigError, InputError, ModelLoadError: config, data or checkpoint are not what they should be.
        ExportError: the outputs change by folding batch norms.
        TrainingError: the loss is not finite.
        EnvironmentLacks: no such device.
    """
    config = load_config(config_path, overrides)
    losses_of_model = trainable(config.model.type)
    calibration = config.quantization.calibration
    if calibration.data is None:
        raise ConfigError(
            "is missing: training on the samples that the model is evaluated on would prove nothing",
            where="quantization.calibration.data", hint="name another split there, with the keys of the section data",
        )  # fmt: skip
    left_out = (*config.quantization.sensitive_layers, *skip)
    where = torch_device(resolved_device(config, device), device)
    workspace = Workspace.create(work)
    settings = {
        "epochs": epochs,
        "steps": steps,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "seed": seed,
    }
    stage = workspace.stage(
        STAGE,
        tool="exporter",
        config={
            **part(config, "model"), **settings, "device": str(where),
            **settings_key(config, calibration.num_batches, method_of(calibration), left_out),
        },
        inputs=sources(config, data_root),
        versions=stage_versions(PACKAGES, config),
    )  # fmt: skip
    if force or not stage.up_to_date():
        state = workspace.place(STATE)
        if force:
            state.remove_file()
        with stage:
            started = _belongs_to(state, stage.fingerprint)
            session = open_model(config, data_root, fuse=not started)
            losses_of_model.prepare(session.model, session.training)
            about = load_ptq_model(session.model, state.checked()) if started else _calibrated(session, skip, where)
            session.model.to(where)
            training = Training(
                session.model, losses_of_model, session.calibration, session.parameters,
                label_map(
                    session.calibration.classes, models.classes(session.adapter, session.model, session.training)
                ),
            )  # fmt: skip
            plan = Plan(
                steps or epochs * math.ceil(len(session.calibration) / batch_size), batch_size, learning_rate, seed
            )
            about = {name: value for name, value in about.items() if name not in record_of(session.model)}
            reports = fine_tune(training, plan, state, {"key": stage.fingerprint, "about": about})
            record = {**about, **asdict(plan), "checkpoint": session.weights, "skipped": list(left_out)}
            with stage.artifact(CHECKPOINT, kind="checkpoint") as path:
                save_ptq_model(session.model.cpu(), path, record)
            stage.json_artifact(LOSSES, "losses", {"losses": reports})
            stage.result("quantize", "qat", {**about, **asdict(plan), "layers": len(quantized_layers(session.model))})
            state.remove_file()
    return _checkpoint_path(workspace, output)


def take_over(
    config_path: Path,
    work: Path,
    overrides: Sequence[str],
    trained: Path,
    *,
    output: Path | None = None,
    force: bool = False,
) -> str:
    """Take a checkpoint that QATHook made elsewhere as ``quantized/qat.pth`` of a workspace.

    Args:
        config_path: the deploy config; ``model.config`` is the training config of the checkpoint.
        trained: ``qat.pth``, or another checkpoint of that training.
        work, overrides, output, force: as in `qat`.

    Returns:
        What to print.

    Raises:
        ConfigError, ModelLoadError: config or checkpoints are not what they should be.
    """
    config = load_config(config_path, overrides)
    adapter = models.find(config.model.type)
    training = training_config_of(config)
    workspace = Workspace.create(work)
    stage = workspace.stage(
        STAGE,
        tool="exporter",
        config=part(config, "model"),
        inputs={
            "checkpoint": checkpoint_digest(checkpoint_of(config)),
            "training_config": training.digest,
            "trained": checkpoint_digest(trained),
        },
        versions=stage_versions(PACKAGES, config),
    )
    if force or not stage.up_to_date():
        with stage:
            model = models.build(adapter, training, adapter.read_options(config.model.options))
            record = load_ptq_model(model, trained)
            about = {name: value for name, value in record.items() if name not in record_of(model)}
            with stage.artifact(CHECKPOINT, kind="checkpoint") as path:
                save_ptq_model(model, path, about)
            stage.result("quantize", "qat", {**about, "layers": len(quantized_layers(model))})
    return _checkpoint_path(workspace, output)


def _checkpoint_path(workspace: Workspace, output: Path | None) -> str:
    """Where the checkpoint is, after copying it to ``output``."""
    if output is not None:
        copy(workspace.artifact(CHECKPOINT), output)
    return str(output or workspace.path(CHECKPOINT))


def _calibrated(session: Session, skip: Sequence[str], device: torch.device) -> dict[str, Any]:
    """Calibrate and freeze a session's model; how."""
    model, quantization = session.model.to(device), session.config.quantization
    calibration = quantization.calibration

    def batches() -> Iterator[Any]:
        return (batch.to(device) for batch in session.calibration_batches(calibration.num_batches))

    layers = select(model, quantization.sensitive_layers, also=skip)
    manager = CalibrationManager(model, layers, session.forward)
    manager.calibrate(
        batches(), calibration.num_batches, method_of(calibration), percentile=calibration.percentile,
        available=len(session.calibration),
    )  # fmt: skip
    freeze(model)
    share_scales(model, session.forward, batches())
    return {"mode": "qat", **manager.about}


def _belongs_to(state: WorkPath, key: str) -> bool:
    """Whether a training that stopped left its state behind, and it is this one's."""
    if not state.is_file():
        return False
    content = torch.load(state.checked(), map_location="cpu", weights_only=True, mmap=True)
    return bool(content["key"]["key"] == key)


def hold_norms(model: nn.Module) -> None:
    """Keep the batch norms of a model that is being trained as they are: statistics, weights and biases."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval().requires_grad_(False)


def fit_weight_ranges(model: nn.Module) -> None:
    """Give the weights of frozen layers the range that they now have: with a fixed one the largest could not grow, and
    would learn nothing once they have reached it."""
    for layer in frozen_layers(model).values():
        sizes, axis = layer.weight.detach().abs(), layer.weight_quantizer.axis
        layer.weight_quantizer.set_scale(scale_of(sizes.amax() if axis is None else sizes.flatten(1).amax(1)))


def stop_unless_finite(value: float, where: str) -> None:
    """Raises TrainingError where a loss, or the norm of the gradients, is NaN or infinite."""
    if not math.isfinite(value):
        raise TrainingError(
            f"the loss or its gradient is {value}",
            where=where,
            hint="lower the learning rate, keep sensitive layers in float (quantization.sensitive_layers, found by "
            "`exporter quantize sensitivity`), and check labels and the checkpoint",
        )


def fine_tune(training: Training, plan: Plan, resume: WorkPath, key: Mapping[str, Any]) -> list[dict[str, float]]:
    """Train a frozen model in place, on the device that it is on.

    Args:
        training: model and samples.
        plan: how.
        resume: file that the state of the training is kept in, twenty times in its course; a training of the same key
            and plan goes on from there.
        key: what the training depends on: plain values (JSON), kept in the state.

    Returns:
        Mean losses over the course of the training: ``step``, and ``loss`` and its parts where there were any.

    Raises:
        InputError: a sample has no labels, its files are broken, or none can be learned from.
        TrainingError: the loss is not finite.
        EnvironmentLacks: the disk is full.
    """
    model = training.model
    # On a CPU convolutions of this layout take half the time.
    model.requires_grad_(True).to(memory_format=torch.channels_last).train()
    hold_norms(model)
    weights = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=plan.learning_rate, betas=BETAS, weight_decay=WEIGHT_DECAY)
    state = _State(resume, {**key, "plan": asdict(plan)}, model, optimizer)
    first, reports = state.load()
    every = max(1, plan.steps // _REPORTS)
    means = _Means()
    for step in track(range(first, plan.steps), "fine-tuning", plan.steps - first):
        for group in optimizer.param_groups:
            group["lr"] = one_cycle((step + 1) / plan.steps, plan.learning_rate)
        losses = training.losses(plan, step)
        if losses:
            means.add(_step(losses, weights, optimizer, f"step {step + 1}"))
            fit_weight_ranges(model)
        if (step + 1) % every == 0 or step + 1 == plan.steps:
            reports.append({"step": step + 1, **means.take()})
            loss = reports[-1].get("loss", math.nan)
            extra = event("progress", done=step + 1, total=plan.steps, loss=loss)
            _log.info("fine-tuning: step %d of %d, loss %.4f", step + 1, plan.steps, loss, extra=extra)
            state.save(step + 1, reports)
    if not any("loss" in report for report in reports):
        raise InputError("not one sample can be trained on", where="quantization.calibration.data")
    model.requires_grad_(False).to(memory_format=torch.contiguous_format).eval()
    return reports


def _step(losses: Losses, weights: Sequence[Tensor], optimizer: torch.optim.Optimizer, where: str) -> dict[str, float]:
    total = torch.stack(list(losses.values())).sum()
    stop_unless_finite(total.item(), where)
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(total)
    stop_unless_finite(float(nn.utils.clip_grad_norm_(weights, MAX_GRADIENT_NORM)), where)
    optimizer.step()
    return {"loss": total.item(), **{name: value.item() for name, value in losses.items()}}


class _Means:
    """Means of losses since they were last taken."""

    def __init__(self) -> None:
        self._values: list[dict[str, float]] = []

    def add(self, losses: dict[str, float]) -> None:
        self._values.append(losses)

    def take(self) -> dict[str, float]:
        values, self._values = self._values, []
        return {name: sum(each[name] for each in values) / len(values) for name in (values[0] if values else ())}


class _State:
    """The state of a training in a file: a quantized checkpoint with the optimizer's state beside it.

    Args:
        path: the file.
        key: the training that it belongs to; that of another one is not taken up.
        model: frozen.
        optimizer: over its weights.
    """

    def __init__(self, path: WorkPath, key: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._path, self._key, self._model, self._optimizer = path, key, model, optimizer

    def load(self) -> tuple[int, list[dict[str, float]]]:
        """Steps done, and reports; (0, []) where there is nothing to go on from."""
        if not self._path.is_file():
            return 0, []
        content = torch.load(self._path.checked(), map_location="cpu", weights_only=True)
        if content["key"] != self._key:
            return 0, []
        self._model.load_state_dict(content["state_dict"])
        self._optimizer.load_state_dict(content["optimizer"])
        _log.info("fine-tuning: going on after step %d", content["step"])
        return content["step"], content["reports"]

    def save(self, step: int, reports: list[dict[str, float]]) -> None:
        content = {
            "key": self._key,
            "step": step,
            "reports": reports,
            "state_dict": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            RECORD: {**record_of(self._model), **self._key.get("about", {})},
        }
        with atomic_path(self._path) as temporary:
            torch.save(content, temporary)
