"""What the training framework has between its parts, for the kinds of models that can be run step by step.

A model's ``trace.py`` has ``STEPS``, the names of those steps of the runtime's pipeline after which the
framework's state can be seen, and ``states``, the state after each as arrays. Where the framework does several steps in
one, only the last is named; `runtime swap` swaps them together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

import numpy.typing as npt

from shared import plugins
from shared.errors import UsageError
from shared.tasks import Predictions

State = dict[str, npt.NDArray[Any]]


class Tracer(Protocol):
    """What a model's ``trace.py`` has."""

    STEPS: tuple[str, ...]

    def states(
        self, model: Any, model_input: Any, parameters: Mapping[str, Any]
    ) -> tuple[dict[str, State], Predictions]:
        """The state after each step, by its name, and the predictions.

        Args:
            model: of the framework, with its weights.
            model_input: what the model's adapter loads for a sample.
            parameters: of the model spec.
        """


def find(model: str) -> Tracer:
    """The tracer of a kind of model.

    Raises:
        UsageError: there is none.
    """
    module = plugins.part(plugins.EXPORTER_MODELS, model, "trace")
    if module is None:
        raise UsageError(
            f"the framework can't be traced step by step for models of kind '{model}'",
            hint=f"it can for: {', '.join(plugins.with_part(plugins.EXPORTER_MODELS, 'trace'))}",
        )
    return cast(Tracer, module)
