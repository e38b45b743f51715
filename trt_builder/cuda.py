"""The little of CUDA's driver API that a profiled run needs (memory, a stream, events), by ctypes: nothing to install.

The primary context is used, which is the one that TensorRT's CUDA runtime uses too.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

from shared.errors import EnvironmentLacks, InferenceError


class Cuda:
    """The primary context of a GPU; use within `primary_context`."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._memory: list[int] = []

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver.

        Raises:
            InferenceError: it failed.
        """
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            text = ctypes.c_char_p()
            self._library.cuGetErrorName(code, ctypes.byref(text))
            raise InferenceError(f"{name} failed: {(text.value or b'?').decode()}")

    def allocate(self, size: int) -> int:
        """Zeroed device memory, freed at the end; returns its address."""
        address = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(size, 1)))
        self._memory.append(address.value)
        self.call("cuMemsetD8_v2", address, ctypes.c_ubyte(0), ctypes.c_size_t(max(size, 1)))
        self._settle()
        return address.value

    def upload(self, address: int, data: bytes) -> None:
        """Copy bytes to device memory; they are there when it returns."""
        self.call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), data, ctypes.c_size_t(len(data)))
        self._settle()

    def _settle(self) -> None:
        """Wait for what was put on the default stream, which `stream` does not.

        Clearing memory returns at once, and a copy from pageable memory when the bytes are staged, not when they have
        arrived (API synchronization behavior, in the CUDA driver API's manual).
        """
        self.call("cuCtxSynchronize")

    def stream(self) -> int:
        """A new stream, which does not wait for the default one."""
        handle = ctypes.c_void_p()
        self.call("cuStreamCreate", ctypes.byref(handle), ctypes.c_uint(1))
        assert handle.value is not None
        return handle.value

    def synchronize(self, stream: int) -> None:
        """Wait for a stream."""
        self.call("cuStreamSynchronize", ctypes.c_void_p(stream))

    def event(self) -> ctypes.c_void_p:
        """A new event that takes the time."""
        handle = ctypes.c_void_p()
        self.call("cuEventCreate", ctypes.byref(handle), ctypes.c_uint(0))
        return handle

    def record(self, event: ctypes.c_void_p, stream: int) -> None:
        """Record an event in a stream."""
        self.call("cuEventRecord", event, ctypes.c_void_p(stream))

    def milliseconds(self, start: ctypes.c_void_p, end: ctypes.c_void_p) -> float:
        """Time between two events that have passed."""
        value = ctypes.c_float()
        self.call("cuEventElapsedTime", ctypes.byref(value), start, end)
        return value.value

    def free_all(self) -> None:
        """Free what was allocated."""
        for address in self._memory:
            self.call("cuMemFree_v2", ctypes.c_uint64(address))
        self._memory.clear()


@contextlib.contextmanager
def primary_context(index: int = 0) -> Iterator[Cuda]:
    """The primary context of GPU ``index``, made current.

    Raises:
        EnvironmentLacks: no driver or GPU.
    """
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise EnvironmentLacks("no CUDA driver (libcuda.so.1)", hint="run this where the GPU is") from error
    cuda = Cuda(library)
    cuda.call("cuInit", 0)
    device, context = ctypes.c_int(), ctypes.c_void_p()
    cuda.call("cuDeviceGet", ctypes.byref(device), index)
    cuda.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    cuda.call("cuCtxSetCurrent", context)
    try:
        yield cuda
    finally:
        cuda.free_all()
        cuda.call("cuDevicePrimaryCtxRelease_v2", device)
