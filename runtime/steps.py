"""Pipelines step by step: every intermediate result can be kept, and any step can start from one that was kept.

A module ``runtime/staged/<model>.py`` with a function ``steps`` has the steps of the models whose spec says
``model: <model>``. Another package adds one by an entry point of the group ``awml_deploy.staged``. The steps call the
same functions as the pipeline in ``runtime/pipelines``, in NumPy, whatever device the components run on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from runtime.backends import Session
from shared import plugins
from shared.errors import UsageError
from shared.spec import ModelSpec

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Step:
    """One step of a pipeline.

    Attributes:
        name: component names are those of the model spec.
        run: the state after the step from the state before it; the first step's is a sample of the data set, the
            last step's the predictions. A state is valid until the same step runs again.
        pack: a state after the step as arrays, all that later steps need.
        unpack: the state from such arrays.
    """

    name: str
    run: Callable[[Any], Any]
    pack: Callable[[Any], dict[str, npt.NDArray[Any]]]
    unpack: Callable[[Arrays], Any]


def steps_of(spec: ModelSpec, session: Session) -> list[Step]:
    """The steps of a model on a session, in order.

    Raises:
        UsageError: models of this kind can't be run step by step.
        ManifestError: the spec's parameters are not what the steps need.
    """
    module = plugins.part(plugins.PIPELINES, spec.model, "staged")
    if module is None:
        raise UsageError(
            f"models of kind '{spec.model}' can't be run step by step",
            hint=f"there are steps for: {', '.join(plugins.with_part(plugins.PIPELINES, 'staged'))}",
        )
    make: Callable[[ModelSpec, Session], list[Step]] = module.steps
    return make(spec, session)


def run_steps(steps: Sequence[Step], state: Any) -> Any:
    """The state after all of ``steps``, in order, from the state before them."""
    for step in steps:
        state = step.run(state)
    return state
