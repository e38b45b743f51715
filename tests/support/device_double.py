"""A device session without networks: the encoder and the head answer with tensors that the test chose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from runtime.cuda.gpu import DeviceArray, Gpu
from runtime.cuda.session import Bound, DeviceSession, Lane
from runtime.models.centerpoint.parameters import ENCODER
from shared.spec import ModelSpec


class DeviceDouble(DeviceSession):
    """Components that copy prepared tensors.

    Attributes:
        canvas: what the head was asked last, once the request is over.

    Args:
        gpu: the GPU.
        spec: the model.
        pillars: (rows, 1, C) what the encoder answers with, whatever it is asked.
        outputs: what the head answers with, by name.
        recordable: whether requests may be recorded as CUDA graphs.
    """

    def __init__(
        self,
        gpu: Gpu,
        spec: ModelSpec,
        pillars: np.ndarray[Any, Any],
        outputs: Mapping[str, np.ndarray[Any, Any]],
        *,
        recordable: bool = True,
    ) -> None:
        self.canvas: np.ndarray[Any, Any]
        self.gpu = gpu
        self.settings: dict[str, Any] = {}
        self.recordable = recordable
        self.pillars = gpu.pinned(pillars.shape, pillars.dtype)
        self.pillars[:] = pillars
        self.outputs = {name: gpu.upload(array) for name, array in outputs.items()}

    def run(self, component: str, inputs: Any) -> dict[str, Any]:
        raise NotImplementedError

    def rows(self, component: str) -> tuple[int, int | None]:
        return 10, self.pillars.shape[0]

    def dtype(self, component: str, tensor: str) -> np.dtype[Any]:
        if component == ENCODER or tensor not in self.outputs:
            return self.pillars.dtype
        return self.outputs[tensor].dtype

    def open_lane(self) -> Lane:
        return _Lane(self)


class _Lane(Lane):
    def __init__(self, session: DeviceDouble) -> None:
        self._session = session
        self.stream = session.gpu.stream()
        self.recordable = session.recordable

    def bind(self, component: str, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]) -> Bound:
        if component == ENCODER:
            return _Encoder(self._session, dict(outputs), self.stream)
        (canvas,) = inputs.values()
        self._session.canvas = self._session.gpu.pinned(canvas.shape, canvas.dtype)
        return _Head(self._session, canvas, self.stream)


class _Encoder(Bound):
    def __init__(self, session: DeviceDouble, outputs: dict[str, DeviceArray], stream: Any) -> None:
        self.outputs = outputs
        self._session, self._stream = session, stream

    def enqueue(self) -> None:
        (target,) = self.outputs.values()
        self._session.gpu.to_device(self._session.pillars[: target.shape[0]], target.address, self._stream)


class _Head(Bound):
    def __init__(self, session: DeviceDouble, canvas: DeviceArray, stream: Any) -> None:
        self.outputs = session.outputs
        self._session, self._canvas, self._stream = session, canvas, stream

    def enqueue(self) -> None:
        self._session.gpu.to_host(self._canvas, self._session.canvas, self._stream)
