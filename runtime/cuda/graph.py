"""CUDA graphs: what was enqueued on a stream, recorded once and launched as a whole.

By the driver's own functions: pycuda has none for graphs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from shared.cuda import call, freed_by, library
from shared.errors import InferenceError

# Value of CUDA's driver API (cuda.h): CU_STREAM_CAPTURE_MODE_RELAXED.
_RELAXED = 2


class Graph:
    """A recorded sequence. It uses the addresses of the buffers that it was recorded with: they must outlive it."""

    def __init__(self, stream: Any, enqueue: Callable[[], None]) -> None:
        """Record what ``enqueue`` puts on the stream; nothing runs yet.

        Raises:
            InferenceError: something in it can't be recorded.
        """
        self._stream = ctypes.c_void_p(stream.handle)
        self._executable = ctypes.c_void_p()
        self._free = freed_by("cuGraphExecDestroy")
        graph = ctypes.c_void_p()
        driver: Any = library()
        call("cuStreamBeginCapture_v2", self._stream, _RELAXED)
        try:
            try:
                enqueue()
            finally:
                # Ended in any case: a stream that is left recording refuses everything else.
                ended = driver.cuStreamEndCapture(self._stream, ctypes.byref(graph))
            if ended != 0:
                raise InferenceError(f"recording a CUDA graph failed (error {ended})")
            call("cuGraphInstantiateWithFlags", ctypes.byref(self._executable), graph, ctypes.c_ulonglong(0))
        finally:
            if graph:
                driver.cuGraphDestroy(graph)
        # Uploaded now, so that the first launch is like the others.
        call("cuGraphUpload", self._executable, self._stream)

    def __del__(self) -> None:
        # One that still runs goes when it has ended.
        if self._executable:
            self._free(self._executable)

    def launch(self) -> None:
        """Enqueue the whole sequence."""
        call("cuGraphLaunch", self._executable, self._stream)
