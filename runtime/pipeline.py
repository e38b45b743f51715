"""Pipelines: pre-processing, components and post-processing of one kind of model, whatever the backend.

A folder ``runtime/models/<model>/`` with ``pipeline.py`` and its function ``build`` is the pipeline of the models whose
spec says ``model: <model>``. Another package adds one by an entry point of the group ``awml_deploy.pipelines``
(`shared.plugins`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from runtime.backends import Session
from shared import plugins
from shared.errors import ManifestError
from shared.spec import ModelSpec
from shared.tasks import Predictions


@dataclass(frozen=True)
class PipelineInput:
    """A model's input for one sample.

    Attributes:
        data: what `Pipeline.infer` takes.
        counters: what reading it left out, by name.
    """

    data: Any
    counters: dict[str, int]


@dataclass(frozen=True)
class Inference:
    """What one request gave.

    Attributes:
        predictions: those of the task.
        outputs: raw outputs of the last component, as the backend gave them.
        latency_ms: milliseconds by stage, in the order in which they ran, and ``total``.
        counters: what the input and the outputs were like, by name; for example voxels that did not fit.
    """

    predictions: Predictions
    outputs: Mapping[str, npt.NDArray[Any]]
    latency_ms: dict[str, float]
    counters: dict[str, int]


class Pipeline(Protocol):
    """One model on one session. It owns buffers, and so serves one request at a time."""

    def read(self, sample: Any) -> PipelineInput:
        """The model's input for a sample of a data set. Not part of a request.

        Raises:
            InputError: a file of the sample is missing or corrupt.
        """

    def infer(self, data: Any) -> Inference:
        """One request, from the input in host memory to predictions in host memory.

        Raises:
            InferenceError: the input does not fit the model, or the backend failed.
        """

    def comparable(self, outputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Raw outputs in the conventions of the training framework, so that they compare with its own."""

    def alerts(self, counters: Mapping[str, int]) -> list[str]:
        """What a user must know: one line each, with the numbers.

        Args:
            counters: those of `PipelineInput` and `Inference`, summed over a run.
        """


class DevicePipeline(ABC):
    """A `Pipeline` whose requests run on a GPU from end to end, so that several can be in flight, one a lane.

    Taking the time of every stage costs some microseconds a stage.
    """

    @abstractmethod
    def infer(self, data: Any) -> Inference:
        """See `Pipeline`; with the time of every stage."""

    @abstractmethod
    def submit(self, data: Any, *, stages: bool = False) -> None:
        """Enqueue a request without waiting for it; `collect` has to follow before the next one.

        Args:
            data: as for `Pipeline.infer`.
            stages: take the time of every stage.
        """

    @abstractmethod
    def collect(self) -> Inference:
        """Wait for the request in flight."""

    @abstractmethod
    def another(self) -> DevicePipeline:
        """A second lane on the same session, with buffers of its own."""

    @abstractmethod
    def input_shapes(self, counters: Mapping[str, int]) -> dict[str, dict[str, tuple[int, ...]]]:
        """Input shapes of each component, by name, for a request with these counters."""


Builder = Callable[[ModelSpec, Session], Pipeline]


def build_pipeline(spec: ModelSpec, session: Session) -> Pipeline:
    """The pipeline of a model.

    Raises:
        ManifestError: there is none for this kind of model, or the spec's parameters are not what it needs.
    """
    module = plugins.part(plugins.PIPELINES, spec.model, "pipeline")
    if module is None:
        raise ManifestError(
            f"there is no pipeline for models of kind '{spec.model}'",
            where="model spec",
            hint=f"there are: {', '.join(available_pipelines())}; a package can add one (docs/extending.md)",
        )
    build: Builder = module.build
    return build(spec, session)


def available_pipelines() -> list[str]:
    """Kinds of models that there is a pipeline for."""
    return plugins.available(plugins.PIPELINES)
