"""The models that can be exported: a folder each, found by its name.

A folder has ``adapter.py`` with the functions of `ExportableModel`. Those here are found by their names; a package
outside this repository adds one by an entry point of the group ``awml_deploy.exporter_models``: name of the model to
such a folder (`shared.plugins`).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, cast

from exporter.component import Component
from exporter.training_config import TrainingConfig, explain_config_errors
from shared import plugins
from shared.errors import ConfigError
from shared.runs import RawOutputs
from shared.tasks import Predictions


class ExportableModel(Protocol):
    """What the adapter of a model provides. ``options`` is what its own ``read_options`` returned."""

    TASK: str

    def read_options(self, options: Mapping[str, Any]) -> Any:
        """``model.options`` of the deploy config, checked.

        Raises:
            ConfigError: an unknown option or a wrong value.
        """

    def build(self, config: TrainingConfig, options: Any) -> Any:
        """The model with random weights, in evaluation mode.

        Raises:
            ConfigError: the config is of another model, or of a variant that can't be deployed.
        """

    def classes(self, model: Any) -> list[str]:
        """Class names, in label order."""

    def parameters(self, model: Any, config: TrainingConfig, options: Any) -> dict[str, Any]:
        """What the runtime needs to know for pre- and post-processing, as JSON."""

    def load_input(self, sample: Any, parameters: Mapping[str, Any]) -> Any:
        """What the framework's own data preprocessor takes, for one sample of a data set.

        `components` and `answer` are given it: a tensor, or an object with ``to(device)``, which moves its tensors.
        """

    def components(self, model: Any, model_input: Any, options: Any) -> list[Component]:
        """The parts to export, in the order in which they run.

        Raises:
            ExportError: nothing can be traced with the sample.
        """

    def answer(self, model: Any, model_input: Any) -> tuple[RawOutputs, Predictions, dict[str, int]]:
        """What the training framework itself answers: raw outputs by name, predictions, counters."""


def available() -> list[str]:
    """Names of the models that can be exported here."""
    return plugins.available(plugins.EXPORTER_MODELS)


def find(name: str) -> ExportableModel:
    """The model called ``name``.

    Raises:
        ConfigError: there is none; says which there are.
        EnvironmentLacks: an outside package's model can't be imported.
    """
    adapter = plugins.part(plugins.EXPORTER_MODELS, name, "adapter")
    if adapter is None:
        raise ConfigError(f"no model '{name}'", where="model.type", hint=plugins.known(plugins.EXPORTER_MODELS))
    return cast(ExportableModel, adapter)


def build(adapter: ExportableModel, config: TrainingConfig, options: Any) -> Any:
    """`ExportableModel.build`, for configs that nobody has checked.

    Raises:
        ConfigError: as it says, or a value of the config is not what the adapter or the framework takes.
    """
    with explained(adapter, config):
        return adapter.build(config, options)


def classes(adapter: ExportableModel, model: Any, config: TrainingConfig) -> list[str]:
    """`ExportableModel.classes`, for configs that nobody has checked.

    Raises:
        ConfigError: as `build`.
    """
    with explained(adapter, config):
        return adapter.classes(model)


def parameters(adapter: ExportableModel, model: Any, config: TrainingConfig, options: Any) -> dict[str, Any]:
    """`ExportableModel.parameters`, for configs that nobody has checked.

    Raises:
        ConfigError: as it says, or a value of the config is not what the adapter takes.
    """
    with explained(adapter, config):
        return adapter.parameters(model, config, options)


def load_input(adapter: ExportableModel, config: TrainingConfig, sample: Any, parameters: Mapping[str, Any]) -> Any:
    """`ExportableModel.load_input`, for configs that nobody has checked.

    Raises:
        ConfigError: as `build`.
    """
    with explained(adapter, config):
        return adapter.load_input(sample, parameters)


def components(
    adapter: ExportableModel, model: Any, model_input: Any, config: TrainingConfig, options: Any
) -> list[Component]:
    """`ExportableModel.components`, for configs that nobody has checked.

    Raises:
        ConfigError: as `build`.
        ExportError: as it says.
    """
    with explained(adapter, config):
        return adapter.components(model, model_input, options)


def explained(part: object, config: TrainingConfig) -> AbstractContextManager[None]:
    """Inside, a file of a model's folder reads a config that nobody has checked.

    Args:
        part: the file, as a module.
        config: what it reads.

    Raises:
        ConfigError: a value is missing or not what it should be; says where in the folder it was read.
    """
    file = getattr(part, "__file__", None)
    return explain_config_errors(config.path, *([] if file is None else [Path(file).parent]))
