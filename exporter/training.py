"""How a kind of model is trained: our samples become the framework's, and its own loss is evaluated.

A model's ``training.py`` has the functions of `Trainable`. mmdet3d and mmdet have their targets, assignment and losses
in the model (``model.loss``), so that whatever head a user trained is fine-tuned by what it was trained with. Samples
are mirrored (and, in 3D, rotated and scaled) at random: a network soon memorizes a few hundred frames.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from exporter.training_config import TrainingConfig
from exporter.training_only import short_name
from shared import plugins
from shared.errors import ConfigError, InputError

Labels = Mapping[int, int]  # label of the data set -> label of the model
Losses = dict[str, Tensor]

MIRROR_PROBABILITY = 0.5

_WARM_UP = 0.3  # share of the training in which the learning rate rises
_START_DIVISOR, _END_DIVISOR = 10.0, 1e4  # of the greatest learning rate


class Trainable(Protocol):
    """What a model's ``training.py`` provides."""

    def prepare(self, model: Any, config: TrainingConfig) -> None:
        """Put back what `exporter.training_config.build_model` leaves out, in place.

        Raises:
            ConfigError: the training config lacks what the loss needs, or a loss is not installed.
        """

    def load(
        self, model: Any, sample: Any, parameters: Mapping[str, Any], labels: Labels, rng: np.random.Generator
    ) -> Any:
        """A sample as ``losses`` takes it, augmented at random; None where nothing can be learned from it.

        Args:
            model: of the framework.
            sample: of a data set.
            parameters: of the model spec.
            labels: see `label_map`.
            rng: decides the augmentation.

        Raises:
            InputError: a sample without labels, or broken files.
        """

    def losses(self, model: Any, items: Sequence[Any]) -> Losses:
        """The framework's losses of a batch of loaded samples, by name; scalars."""


def trainable(model_type: str) -> Trainable:
    """How models of this ``model.type`` are trained.

    Raises:
        ConfigError: its folder has no ``training.py``.
    """
    module = plugins.part(plugins.EXPORTER_MODELS, model_type, "training")
    if module is None:
        known = ", ".join(plugins.with_part(plugins.EXPORTER_MODELS, "training"))
        raise ConfigError(
            f"there is no training loss for '{model_type}' here; there is for {known}",
            where="model.type",
            hint="fine-tune it in its own training with QATHook (docs/quantization.md), or use `exporter quantize ptq`",
        )
    return cast(Trainable, module)


def label_map(dataset_classes: Sequence[str], model_classes: Sequence[str]) -> dict[int, int]:
    """Which label of the data set is which of the model, by name; classes that the model does not know are left out.

    Raises:
        ConfigError: they have no class in common.
    """
    labels = {
        index: list(model_classes).index(name) for index, name in enumerate(dataset_classes) if name in model_classes
    }
    if not labels:
        raise ConfigError(
            f"the data set's classes ({', '.join(dataset_classes) or 'none'}) are none of the model's "
            f"({', '.join(model_classes)})",
            where="data.classes",
            hint="list the model's classes, and map the source's names with label_map",
        )
    return labels


def one_cycle(progress: float, greatest: float) -> float:
    """The learning rate at a share of the training: cosine up to the greatest, cosine down."""
    if progress < _WARM_UP:
        start, end, share = greatest / _START_DIVISOR, greatest, progress / _WARM_UP
    else:
        start, end = greatest, greatest / _END_DIVISOR
        share = min((progress - _WARM_UP) / (1 - _WARM_UP), 1.0)
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


# -- what the models' modules share -----------------------------------------------------------------------------------


def scalar_losses(parts: Mapping[str, Any]) -> Losses:
    """mmengine's rule for what a model's ``loss`` returns: what has "loss" in its name counts, lists are added up."""
    return {
        name: sum((level.mean() for level in value), start=torch.zeros(())) if isinstance(value, list) else value.mean()
        for name, value in parts.items()
        if "loss" in name
    }


def known_labels(labels: Any, mapping: Labels) -> tuple[Any, Any]:
    """(rows, labels of the model): of (N,) labels of the data set, those that the model knows."""
    translated = np.array([mapping.get(int(label), -1) for label in labels], np.int64)
    rows = np.flatnonzero(translated >= 0)
    return rows, translated[rows]


def unlabeled(sample: Any) -> InputError:
    """The error of a sample without labels."""
    return InputError(
        "has no labels, and training needs them", where=f"sample {sample.token}", hint="use a labeled data set"
    )


def check_losses(config: TrainingConfig, registry: Any, except_for: Sequence[str] = ()) -> None:
    """Check that `build_model` did not have to put something else in the place of a loss.

    Args:
        config: the training config.
        registry: the framework's ``MODELS``.
        except_for: short names of losses that need not be installed.

    Raises:
        ConfigError: a loss is not installed.
    """
    pending: list[Any] = [config.model]
    while pending:
        section = pending.pop()
        for key, value in section.items() if isinstance(section, Mapping) else ():
            if isinstance(value, Mapping) and key.startswith("loss") and "type" in value:
                name = value["type"]
                if isinstance(name, str) and registry.get(name) is None and short_name(name) not in except_for:
                    raise ConfigError(
                        f"its loss {name} is not installed, so the model can't be trained here",
                        where=str(config.path),
                        hint="install the package that has it, or fine-tune there with QATHook (docs/quantization.md)",
                    )
            pending.extend(value if isinstance(value, (list, tuple)) else [value])
