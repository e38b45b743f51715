"""The model of a deploy config, open and ready to be quantized: what all commands of `exporter quantize` begin with."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter import models
from exporter.checkpoints import checkpoint_digest, load_weights
from exporter.quantize.fusion import fuse_model_bn
from exporter.training_config import TrainingConfig, checkpoint_of, training_config_of
from shared.config import load_config
from shared.data import Dataset, open_dataset
from shared.errors import InputError

if TYPE_CHECKING:
    from shared.config.schema import DeployConfig

_log = logging.getLogger("exporter")


@dataclass
class Session:
    """An open model.

    Attributes:
        config: the deploy config.
        adapter: the kind of model (`exporter.models.ExportableModel`).
        training: its training config.
        options: the adapter's options.
        weights: sha256 of the float checkpoint.
        model: torch.nn.Module with its weights, in evaluation mode, on the CPU; batch norms folded if asked for.
        parameters: what `adapter.load_input` takes; those of the model spec.
        dataset: the samples of the section ``data``, which the model is evaluated on.
        calibration: the samples to calibrate on.
        fused: (layer, batch norm) names of what was folded.
    """

    config: DeployConfig
    adapter: models.ExportableModel
    training: TrainingConfig
    options: Any
    weights: str
    model: Any
    parameters: Mapping[str, Any]
    dataset: Dataset[Any]
    calibration: Dataset[Any]
    fused: list[tuple[str, str]]

    def load(self, sample: Any) -> Any:
        """What `forward` takes, for a sample of a data set."""
        return models.load_input(self.adapter, self.training, sample, self.parameters)

    def forward(self, batch: Any) -> Any:
        """Run the framework's model on one sample: raw outputs by name, predictions, counters."""
        return self.adapter.answer(self.model, batch)

    def calibration_indices(self, count: int) -> list[int]:
        """Positions of ``count`` samples to calibrate on, spread evenly; all of them where there are fewer."""
        total = len(self.calibration)
        return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)).tolist() if total else []

    def calibration_batches(self, count: int) -> Iterator[Any]:
        """The inputs of these samples, read one by one."""
        return (self.load(self.calibration.sample(index)) for index in self.calibration_indices(count))


def open_session(
    config_path: Path, overrides: Sequence[str] = (), data_root: Path | None = None, fuse: bool = True
) -> Session:
    """Open the model of a deploy config.

    Args:
        config_path: the deploy config.
        overrides: ``key=value`` for it.
        data_root: where the section ``data`` lies, when not where the config says.
        fuse: fold batch norms, unless ``quantization.fusion.fuse_bn`` is false.

    Raises:
        ConfigError, InputError, ModelLoadError: config, data or checkpoint are not what they should be.
        ExportError: the outputs change by folding batch norms.
    """
    return open_model(load_config(config_path, overrides), data_root, fuse)


def open_model(config: DeployConfig, data_root: Path | None = None, fuse: bool = True) -> Session:
    """`open_session` for a config that was read already."""
    adapter = models.find(config.model.type)
    checkpoint = checkpoint_of(config)
    training = training_config_of(config)
    dataset = open_dataset(config.data, root=data_root, task=config.task_type)
    calibration = calibration_data(config, data_root)
    if calibration.digest() == dataset.digest():
        _log.warning("calibrating on the samples that the model is evaluated on; others: quantization.calibration.data")
    options = adapter.read_options(config.model.options)
    weights = checkpoint_digest(checkpoint)
    model = models.build(adapter, training, options)
    load_weights(model, checkpoint)
    session = Session(
        config=config,
        adapter=adapter,
        training=training,
        options=options,
        weights=weights,
        model=model,
        parameters=models.parameters(adapter, model, training, options),
        dataset=dataset,
        calibration=calibration,
        fused=[],
    )
    if fuse and config.quantization.fusion.fuse_bn:
        batch = session.load(calibration.sample(0))
        session.fused = fuse_model_bn(model, lambda: session.forward(batch)[0])
    return session


def calibration_data(config: DeployConfig, data_root: Path | None = None) -> Dataset[Any]:
    """The samples to calibrate on: ``quantization.calibration.data``, or the section ``data``.

    Raises:
        InputError: there are none.
    """
    section = config.quantization.calibration.data
    samples: Dataset[Any] = (
        open_dataset(config.data, root=data_root, task=config.task_type)
        if section is None
        else open_dataset(section, task=config.task_type)
    )
    if not len(samples):
        where = "data" if section is None else "quantization.calibration.data"
        raise InputError("has no sample to calibrate on", where=where, hint="give 64 or more")
    return samples


def sources(config: DeployConfig, data_root: Path | None = None) -> dict[str, str]:
    """sha256 of the files that a quantized model is made of, for a stage's key.

    Raises:
        ConfigError, InputError, ModelLoadError: one of them is missing.
    """
    return {
        "checkpoint": checkpoint_digest(checkpoint_of(config)),
        "training_config": training_config_of(config).digest,
        "calibration_data": calibration_data(config, data_root).digest(),
    }
