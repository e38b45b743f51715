"""A device session without a network, for the steps around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from runtime.cuda.gpu import DeviceArray
from runtime.cuda.session import Bound, DeviceSession, Lane


class Answering(DeviceSession):
    """A component that answers with the same logits whatever it is given."""

    def __init__(self, gpu: Any, dtype: str = "float32", logits: tuple[float, float] = (-1.0, 2.0)) -> None:
        self.gpu = gpu
        self.settings: dict[str, Any] = {}
        self._dtype = np.dtype(dtype)
        self.logits = gpu.upload(np.array([logits], dtype))

    def run(self, component: str, inputs: Any) -> dict[str, Any]:
        raise NotImplementedError

    def rows(self, component: str) -> tuple[int, int | None]:
        return 1, None

    def dtype(self, component: str, tensor: str) -> np.dtype[Any]:
        return self._dtype

    def open_lane(self) -> Lane:
        return _Lane(self)


class _Lane(Lane):
    def __init__(self, session: Answering) -> None:
        self.stream = session.gpu.stream()
        self.recordable = True
        self._logits = session.logits

    def bind(self, component: str, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]) -> Bound:
        return _Bound(self._logits)


class _Bound(Bound):
    def __init__(self, logits: DeviceArray) -> None:
        self.outputs = {"output": logits}

    def enqueue(self) -> None:
        """The answer is there already."""
