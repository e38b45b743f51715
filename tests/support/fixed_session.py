"""Device sessions without a network, for the steps around it: a component answers the same whatever it is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from runtime.cuda.gpu import DeviceArray
from runtime.cuda.session import Bound, DeviceSession, Lane


class FixedSession(DeviceSession):
    """Answers by name, of one image or of each image of a batch; ``dtype`` is that of all tensors."""

    def __init__(self, gpu: Any, answers: Mapping[str, np.ndarray[Any, Any]], dtype: str, images: int | None) -> None:
        self.gpu = gpu
        self.settings: dict[str, Any] = {}
        self._dtype = np.dtype(dtype)
        self._images = images
        self.answers = {name: gpu.upload(array) for name, array in answers.items()}

    def run(self, component: str, inputs: Any) -> dict[str, Any]:
        raise NotImplementedError

    def rows(self, component: str) -> tuple[int, int | None]:
        return 1, self._images

    def dtype(self, component: str, tensor: str) -> np.dtype[Any]:
        return self._dtype

    def open_lane(self) -> Lane:
        return _Lane(self)


class RowsSession(FixedSession):
    """A YOLOX that answers with rows, those of one image or of each image of a batch, and with ``more`` by name."""

    def __init__(
        self,
        gpu: Any,
        rows: np.ndarray[Any, Any],
        dtype: str = "float32",
        more: Mapping[str, np.ndarray[Any, Any]] | None = None,
    ) -> None:
        batch = rows if rows.ndim == 3 else rows[None]
        super().__init__(gpu, {"output": batch.astype(dtype), **(more or {})}, dtype, len(batch))


class LogitsSession(FixedSession):
    """A classifier that answers with the same two logits."""

    def __init__(self, gpu: Any, dtype: str = "float32", logits: tuple[float, float] = (-1.0, 2.0)) -> None:
        super().__init__(gpu, {"output": np.array([logits], dtype)}, dtype, None)


class _Lane(Lane):
    def __init__(self, session: FixedSession) -> None:
        self.stream = session.gpu.stream()
        self.recordable = True
        self._answers = session.answers

    def bind(self, component: str, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]) -> Bound:
        return _Bound(self._answers)


class _Bound(Bound):
    def __init__(self, answers: dict[str, DeviceArray]) -> None:
        self.outputs = dict(answers)

    def enqueue(self) -> None:
        """The answer is there already."""
