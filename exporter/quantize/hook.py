"""Quantization-aware training in mmengine's Runner, by a hook of the training config.

    custom_imports = dict(imports=["exporter.quantize.hook"])
    custom_hooks = [
        dict(type="QATHook", calibration_batches=100, calibration_epoch=0, freeze_bn=True, sensitive_layers=[],
             amax_method="mse")
    ]
    load_from = "work_dirs/centerpoint/epoch_50.pth"

What happens when: batch norms are folded before the first epoch; at the start of the calibration epoch ranges are found
on batches of the training loader; from there on layers compute what the engine will, in int8 steps, and gradients pass
straight through the rounding. Every checkpoint that the Runner saves from there on is a quantized one,
resumes, and loads with `load_ptq_model`; the last is written as ``qat.pth`` beside them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS
from torch import nn
from torch.optim import Optimizer

from exporter.quantize.calibrate import METHODS, CalibrationManager, Method
from exporter.quantize.checkpoint import RECORD, record_of, save_ptq_model, take_form
from exporter.quantize.frozen import freeze, quantized_layers
from exporter.quantize.fusion import fuse_model_bn, fused_pairs
from exporter.quantize.layers import select
from exporter.quantize.qat import fit_weight_ranges, hold_norms, stop_unless_finite
from exporter.quantize.residual import share_scales
from shared.errors import ConfigError

CHECKPOINT = "qat.pth"


@HOOKS.register_module()
class QATHook(Hook):  # type: ignore[misc]  # mmengine comes without types
    """Quantizes the model that a Runner trains.

    Args:
        calibration_batches: batches of the training loader that ranges are found on.
        calibration_epoch: the epoch, counted from 0, at whose start that happens; training is in float before it.
        freeze_bn: fold batch norms into the layers before them, and keep those that have none as they are. The engine
            multiplies with folded weights, so these are what has to be rounded. False: they go on learning, and stay
            nodes of their own in the exported graph.
        sensitive_layers: names or regular expressions of layers that stay in float.
        amax_method: max, mse, entropy or percentile.

    Raises:
        ConfigError: an argument is wrong; while training: the set-up can't be quantized (several devices, EMA), or the
            training ends before the calibration epoch.
        TrainingError: the loss is not finite.
    """

    def __init__(
        self,
        calibration_batches: int = 100,
        calibration_epoch: int = 0,
        freeze_bn: bool = True,
        sensitive_layers: Sequence[str] = (),
        amax_method: Method = "mse",
    ) -> None:
        if amax_method not in METHODS:
            raise ConfigError(
                f"'{amax_method}' is unknown", where="QATHook.amax_method", hint=f"use {', '.join(METHODS)}"
            )
        for name, value, least in (
            ("calibration_batches", calibration_batches, 1),
            ("calibration_epoch", calibration_epoch, 0),
        ):
            if value < least:
                raise ConfigError(f"is {value}, and must be at least {least}", where=f"QATHook.{name}")
        self.calibration_batches, self.calibration_epoch = calibration_batches, calibration_epoch
        self.freeze_bn, self.sensitive_layers, self.amax_method = freeze_bn, list(sensitive_layers), amax_method
        self._about: dict[str, Any] = {"mode": "qat"}

    # -- loading and saving -------------------------------------------------------------------------------------------

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Give the model the form of a quantized checkpoint before its weights are loaded."""
        record, form = checkpoint.get(RECORD), record_of(_model(runner))
        if record is None:
            return
        if any(record[key] != value for key, value in form.items()):
            with _followed(runner) as model:
                take_form(model, record, checkpoint["state_dict"], "QATHook")
        self._about = {**{key: value for key, value in record.items() if key not in form}, "mode": "qat"}

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Say what form the checkpoint's model has."""
        checkpoint[RECORD] = {**record_of(_model(runner)), **self._about}

    # -- training -----------------------------------------------------------------------------------------------------

    def before_train(self, runner: Any) -> None:
        """Fold batch norms, after weights were loaded."""
        model = _model(runner)
        if any(isinstance(hook, EMAHook) for hook in runner.hooks):
            raise ConfigError(
                "EMAHook averages a copy of the model, which is not quantized", where="custom_hooks", hint="remove it"
            )
        if self.freeze_bn and not fused_pairs(model):
            batch = next(iter(runner.train_dataloader))
            model.eval()
            with _followed(runner):
                pairs = fuse_model_bn(model, lambda: _run(model, batch))
            runner.logger.info(f"QAT: {len(pairs)} batch norms folded")

    def before_train_epoch(self, runner: Any) -> None:
        """Calibrate, once it is time."""
        model = _model(runner)
        if runner.epoch < self.calibration_epoch or quantized_layers(model):
            return
        model.eval()
        layers = select(model, self.sensitive_layers, where="QATHook.sensitive_layers")
        manager = CalibrationManager(model, layers, forward=lambda batch: _run(model, batch))
        manager.calibrate(runner.train_dataloader, self.calibration_batches, self.amax_method)
        self._about.update(manager.about)
        freeze(model)
        share_scales(model, lambda batch: _run(model, batch), iter(runner.train_dataloader))
        model.to(next(model.parameters()).device)
        runner.logger.info(f"QAT: {len(layers)} layers quantized, ranges of {manager.about}")

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:  # noqa: ARG002
        """Keep batch norms as they are: the loop puts the whole model into training mode."""
        if self.freeze_bn:
            hold_norms(_model(runner))

    def after_train_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,  # noqa: ARG002
        outputs: Mapping[str, Any] | None = None,
    ) -> None:
        """Stop where the loss is not finite; give the weights the ranges that they have now."""
        stop_unless_finite((outputs or {})["loss"].item(), f"epoch {runner.epoch}, iteration {batch_idx}")
        fit_weight_ranges(_model(runner))

    def after_train(self, runner: Any) -> None:
        """Write the quantized checkpoint."""
        model = _model(runner)
        if not quantized_layers(model):
            raise ConfigError(
                f"is {self.calibration_epoch}, and training ended before it", where="QATHook.calibration_epoch",
                hint="0 calibrates at the start",
            )  # fmt: skip
        model.eval()
        path = Path(runner.work_dir) / CHECKPOINT
        save_ptq_model(model, path, {**self._about, "epochs": runner.epoch})
        runner.logger.info(f"QAT: {path}")


def _model(runner: Any) -> nn.Module:
    model: nn.Module = runner.model
    if is_model_wrapper(model):
        raise ConfigError(
            "the model is wrapped for several devices, and its layers are replaced as training begins",
            where="QATHook", hint="fine-tune on one device: it takes few epochs",
        )  # fmt: skip
    return model


def _run(model: Any, batch: Any) -> Any:
    """All that training runs, on one batch as it comes from the loader."""
    return model._run_forward(model.data_preprocessor(batch, False), mode="loss")


@contextlib.contextmanager
def _followed(runner: Any) -> Iterator[nn.Module]:
    """A block in which the model's parameters may change: optimizers then hold the new ones, each where the old was."""
    model, optimizers = _model(runner), list(_optimizers(runner.optim_wrapper))
    before = dict(model.named_parameters())
    yield model
    for optimizer in optimizers:
        follow(optimizer, before, model)


def _optimizers(wrapper: Any) -> Iterable[Optimizer]:
    """The optimizers of a Runner; one that only tests has none."""
    if isinstance(wrapper, OptimWrapperDict):
        return [single.optimizer for single in wrapper.values()]
    return [wrapper.optimizer] if isinstance(wrapper, OptimWrapper) else []


def follow(optimizer: Optimizer, before: Mapping[str, nn.Parameter], model: nn.Module) -> None:
    """Give an optimizer the parameters that a model has now; schedules and settings of its groups stay.

    Args:
        optimizer: with parameters of the model as it was, not yet stepped.
        before: these, by name.
        model: with batch norms folded: the bias of the layer takes the place of the batch norm's.
    """
    now = dict(model.named_parameters())
    biases = {f"{norm}.bias": f"{layer}.bias" for layer, norm in fused_pairs(model)}
    for group in optimizer.param_groups:
        held = {id(parameter) for parameter in group["params"]}
        names = [name for name, parameter in before.items() if id(parameter) in held]
        successors = [now[new] for name in names for new in [biases.get(name, name)] if new in now]
        group["params"] = list({id(parameter): parameter for parameter in successors}.values())
