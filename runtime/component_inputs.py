"""Inputs of components that random numbers can't stand for: those that index others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.backends import Session
from runtime.model import HostOnly
from runtime.pipeline import ArraysByName, build_pipeline
from shared.spec import ModelSpec

#: By component, then by name.
IndexInputs = Mapping[str, ArraysByName]


class _Noting(HostOnly):
    """A session that keeps the integers that its components are given."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.given: dict[str, dict[str, npt.NDArray[Any]]] = {}

    def run(self, component: str, inputs: ArraysByName) -> dict[str, npt.NDArray[Any]]:
        """See `Session`."""
        self.given[component] = {name: array.copy() for name, array in inputs.items() if _is_integer(array.dtype)}
        return super().run(component, inputs)


def index_inputs(spec: ModelSpec, session: Session, data: Any) -> IndexInputs:
    """Integer inputs that a model's components get in a request; nothing runs where none takes any.

    Args:
        spec: the model.
        session: its components.
        data: the input of the request, as `runtime.pipeline.Pipeline.infer` takes it.

    Raises:
        InferenceError: the input does not fit the model.
    """
    tensors = [tensor for component in spec.components for tensor in component.inputs]
    if not any(_is_integer(np.dtype(tensor.dtype)) for tensor in tensors):
        return {}
    noting = _Noting(session)
    build_pipeline(spec, noting).infer(data)
    return noting.given


def _is_integer(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iu"
