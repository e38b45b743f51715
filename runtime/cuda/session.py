"""Sessions that run components on device memory, so that a pipeline's own kernels run between them without a copy."""

from __future__ import annotations

import importlib.util
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.cuda.gpu import DeviceArray, Gpu, open_gpu
from runtime.cuda.timeline import Timeline
from runtime.devices import Device
from shared.errors import InferenceError

if TYPE_CHECKING:
    from typing_extensions import Self

_log = logging.getLogger("runtime")


class Bound(ABC):
    """A component with its inputs and their shapes fixed, ready to run over and over.

    Attributes:
        outputs: by name; written anew by every run.
    """

    outputs: dict[str, DeviceArray]

    @abstractmethod
    def enqueue(self) -> None:
        """Put a run on the lane's stream; does not wait.

        Raises:
            InferenceError: the backend refuses.
        """


class Lane(ABC):
    """What one request at a time needs: a stream, and the backend's own scratch memory.

    Attributes:
        stream: everything of the lane runs there, in order.
        recordable: whether runs can become part of a CUDA graph.
    """

    stream: Any
    recordable: bool

    @abstractmethod
    def bind(self, component: str, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]) -> Bound:
        """Fix a component's inputs.

        Args:
            component: its name in the model spec.
            inputs: by name, of the type that `DeviceSession.dtype` says, laid out as `channels_last` says.
            outputs: where outputs go, by name; those that are not named get memory of their own.

        Raises:
            InferenceError: the component does not take these shapes.
        """


@dataclass(frozen=True)
class Origin:
    """What a component computes, for kernels that take its place.

    Attributes:
        onnx: the file that it was built from.
        half: its matrix products are asked for in FP16.
    """

    onnx: Path
    half: bool


class DeviceSession(ABC):
    """The components of a model on a GPU. Sessions of this kind are `runtime.backends.Session` too.

    Attributes:
        gpu: the GPU.
        several_lanes: whether it opens more lanes than one, whose requests run at the same time.
    """

    gpu: Gpu
    several_lanes: bool = False

    @abstractmethod
    def rows(self, component: str) -> tuple[int, int | None]:
        """Smallest and largest size of the first axis of a component's first input; None: no limit."""

    @abstractmethod
    def dtype(self, component: str, tensor: str) -> np.dtype[Any]:
        """Type of an input or output."""

    def channels_last(self, component: str, tensor: str) -> bool:  # noqa: ARG002 (most backends have one layout)
        """Whether the channels of an input (B, C, H, W) lie side by side in memory."""
        return False

    def origin(self, component: str) -> Origin | None:  # noqa: ARG002 (most backends run what they were given)
        """Where kernels may take a component's place: what it computes. None: it runs as it is."""
        return None

    def as_built(self) -> Self:
        """The same components, none of which a kernel takes the place of."""
        return self

    @abstractmethod
    def open_lane(self) -> Lane:
        """A lane of its own for a pipeline; several lanes of a session run at the same time."""


Enqueue = Callable[[Callable[[str], None]], None]


def recorded(gpu: Gpu, lane: Lane, timeline: Timeline, enqueue: Enqueue) -> dict[bool, Callable[[], None]]:
    """What puts a sequence on the lane's stream, see `launches`; it is run once before.

    Raises:
        InferenceError: the backend refuses to run.
    """
    # Backends finish their set-up, and CUDA loads kernels, in the first run.
    enqueue(timeline.marker(lane.stream, timed=False))
    lane.stream.synchronize()
    return launches(gpu, lane, timeline, enqueue)


def launches(gpu: Gpu, lane: Lane, timeline: Timeline, enqueue: Enqueue) -> dict[bool, Callable[[], None]]:
    """What puts a sequence on the lane's stream, with and without the times of its stages.

    A CUDA graph, where the backend can be recorded: a component of a hundred layers takes longer to enqueue one by one
    than a GPU takes to run some of them, and every call of the driver lets another thread of the process have the
    interpreter.

    Args:
        gpu, lane: where it runs.
        timeline: of its stages.
        enqueue: puts it there, given a function that marks the end of a stage; everything in it has run before.

    Returns:
        By whether stages are timed.
    """
    if lane.recordable:
        try:
            return {
                timed: gpu.graph(
                    lane.stream, partial(enqueue, timeline.marker(lane.stream, timed=timed, in_graph=True))
                ).launch
                for timed in (False, True)
            }
        except InferenceError as error:
            _log.warning("requests can't be recorded as CUDA graphs (%s): they are launched call by call", error)
            lane.recordable = False
    return {timed: partial(enqueue, timeline.marker(lane.stream, timed=timed)) for timed in (False, True)}


def kernels_serve(why_not: str | None) -> bool:
    """Whether a pipeline's steps can be kernels.

    Args:
        why_not: why they can't; None when they can.
    """
    if why_not is not None:
        _log.warning("%s: the steps around the network run in NumPy, and tensors pass through the host", why_not)
    return why_not is None


def gpu_of_steps(device: Device, backend_name: str) -> Gpu | None:
    """The GPU for a pipeline's own kernels; None, with a warning, where pycuda is not installed.

    For backends that run without pycuda too. Tensors then pass through the host.

    Raises:
        EnvironmentLacks: pycuda is there, and the GPU is not.
    """
    if importlib.util.find_spec("pycuda") is None:
        _log.warning(
            "%s on %s: pycuda is not installed, so the steps between the components run in NumPy and tensors pass "
            "through the host",
            backend_name,
            device,
        )
        return None
    return open_gpu(device)
