"""Events and CUDA graphs: what was enqueued on a stream, recorded once and launched as a whole.

By the driver's own functions: pycuda has none for graphs. Streams are pycuda's.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

from shared.errors import InferenceError

# Values of CUDA's driver API (cuda.h): CU_STREAM_CAPTURE_MODE_RELAXED, CU_EVENT_RECORD_EXTERNAL and
# CU_EVENT_BLOCKING_SYNC.
_RELAXED = 2
_EXTERNAL = 1
_BLOCKING_SYNC = 1


@functools.cache
def _library() -> Any:
    return ctypes.CDLL("libcuda.so.1")


def _call(name: str, *arguments: Any) -> None:
    """Call a function of the driver.

    Raises:
        InferenceError: it failed.
    """
    code = getattr(_library(), name)(*arguments)
    if code != 0:
        text = ctypes.c_char_p()
        _library().cuGetErrorName(code, ctypes.byref(text))
        raise InferenceError(f"{name} failed: {(text.value or b'?').decode()}")


class Event:
    """A point in a stream, with the time at which the device reached it."""

    def __init__(self, *, blocking: bool = False) -> None:
        """``blocking``: waiting for it frees the processor, and takes longer to wake up."""
        self._handle = ctypes.c_void_p()
        _call("cuEventCreate", ctypes.byref(self._handle), _BLOCKING_SYNC if blocking else 0)

    def record(self, stream: Any, *, in_graph: bool = False) -> None:
        """Set it when the stream comes here; ``in_graph``: on every launch of the graph that is being recorded."""
        flags = _EXTERNAL if in_graph else 0
        _call("cuEventRecordWithFlags", self._handle, ctypes.c_void_p(stream.handle), ctypes.c_uint(flags))

    def hold(self, stream: Any) -> None:
        """What is put on the stream from now on waits for it."""
        _call("cuStreamWaitEvent", ctypes.c_void_p(stream.handle), self._handle, 0)

    def synchronize(self) -> None:
        """Wait for it."""
        _call("cuEventSynchronize", self._handle)

    def milliseconds_until(self, later: Event) -> float:
        """Time on the device between two events that have passed."""
        value = ctypes.c_float()
        _call("cuEventElapsedTime", ctypes.byref(value), self._handle, later._handle)
        return value.value


class Graph:
    """A recorded sequence. It uses the addresses of the buffers that it was recorded with: they must outlive it."""

    def __init__(self, stream: Any, enqueue: Callable[[], None]) -> None:
        """Record what ``enqueue`` puts on the stream; nothing runs yet.

        Raises:
            InferenceError: something in it can't be recorded.
        """
        self._stream = ctypes.c_void_p(stream.handle)
        self._graph, self._executable = ctypes.c_void_p(), ctypes.c_void_p()
        _call("cuStreamBeginCapture_v2", self._stream, _RELAXED)
        try:
            enqueue()
        finally:
            # Ended in any case: a stream that is left recording refuses everything else.
            ended = _library().cuStreamEndCapture(self._stream, ctypes.byref(self._graph))
        if ended != 0:
            raise InferenceError(f"recording a CUDA graph failed (error {ended})")
        _call("cuGraphInstantiateWithFlags", ctypes.byref(self._executable), self._graph, ctypes.c_ulonglong(0))
        # Uploaded now, so that the first launch is like the others.
        _call("cuGraphUpload", self._executable, self._stream)

    def launch(self) -> None:
        """Enqueue the whole sequence."""
        _call("cuGraphLaunch", self._executable, self._stream)
