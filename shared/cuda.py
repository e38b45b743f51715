"""CUDA's driver by ctypes: what GPUs there are, and memory, streams and events on one of them. Nothing to install.

libcuda.so.1 is wherever a driver is (Jetson included, where nvidia-smi often is not), so an edge device builds engines
without a CUDA package. The context is the GPU's primary one, which TensorRT, PyTorch, ONNX Runtime and pycuda use too:
addresses, streams and events pass freely between them. What only the runtime needs (kernels, graphs, copies that
overlap) is in `runtime.cuda`.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from shared import provenance
from shared.errors import EnvironmentLacks, InferenceError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_log = logging.getLogger("cuda")

# Values of CUDA's driver API (cuda.h): CUdevice_attribute, CU_STREAM_NON_BLOCKING, CU_EVENT_RECORD_EXTERNAL,
# CU_EVENT_BLOCKING_SYNC, CU_POINTER_ATTRIBUTE_MEMORY_TYPE and CU_MEMORYTYPE_HOST.
_MULTIPROCESSORS, _CAPABILITY_MAJOR, _CAPABILITY_MINOR = 16, 75, 76
_NON_BLOCKING = 1
_EXTERNAL = 1
_BLOCKING_SYNC = 1
_MEMORY_TYPE, _HOST_MEMORY = 2, 1


@functools.cache
def library() -> Any | None:
    """The driver's library, started; None without a driver or without a GPU that it can start."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    return driver if driver.cuInit(0) == 0 else None


def call(name: str, *arguments: Any) -> None:
    """Call a function of the driver.

    Raises:
        EnvironmentLacks: no driver or GPU.
        InferenceError: the call failed.
    """
    driver = library()
    if driver is None:
        raise EnvironmentLacks("no CUDA driver (libcuda.so.1) or no GPU", hint="run this where the GPU is")
    code = getattr(driver, name)(*arguments)
    if code != 0:
        text = ctypes.c_char_p()
        driver.cuGetErrorName(code, ctypes.byref(text))
        raise InferenceError(f"{name} failed: {(text.value or b'?').decode()}")


@dataclass(frozen=True)
class GpuInfo:
    """A GPU as the driver describes it.

    Attributes:
        index: position, as in ``cuda:0``.
        name: the vendor's name of it.
        capability: compute capability, (9, 0) for Hopper.
        multiprocessors: number of streaming multiprocessors; TensorRT's choice of kernels depends on it.
        memory: bytes of device memory.
    """

    index: int
    name: str
    capability: tuple[int, int]
    multiprocessors: int
    memory: int

    @property
    def architecture(self) -> str:
        """The compute capability as file names and records have it: ``sm90``."""
        return f"sm{self.capability[0]}{self.capability[1]}"


def find_gpus() -> list[GpuInfo]:
    """Every GPU that the driver shows; empty without driver or GPU."""
    driver = library()
    count = ctypes.c_int(0)
    if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    return [_describe(driver, index) for index in range(count.value)]


def _describe(driver: Any, index: int) -> GpuInfo:
    device = ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), index)
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(name, len(name), device)
    memory = ctypes.c_size_t()
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), number, device)
        return value.value

    return GpuInfo(
        index=index,
        name=name.value.decode(errors="replace"),
        capability=(attribute(_CAPABILITY_MAJOR), attribute(_CAPABILITY_MINOR)),
        multiprocessors=attribute(_MULTIPROCESSORS),
        memory=memory.value,
    )


def supported_version() -> str | None:
    """The newest CUDA version that the driver supports, ``13.0``, or None without a driver."""
    driver = library()
    version = ctypes.c_int(0)
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def driver_version() -> str | None:
    """Version of the kernel driver, for example ``580.82.07``; on Jetson the CUDA version that it supports."""
    _, version = provenance.gpu()
    if version is not None:
        return version
    report = Path("/proc/driver/nvidia/version")
    if report.is_file():
        for word in report.read_text(encoding="utf-8", errors="replace").split():
            if word[:1].isdigit() and "." in word:
                return word
    supported = supported_version()
    return f"CUDA {supported}" if supported else None


@functools.cache
def _primary_context(index: int) -> ctypes.c_void_p:
    device, context = ctypes.c_int(), ctypes.c_void_p()
    call("cuDeviceGet", ctypes.byref(device), index)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    return context


def use_gpu(index: int = 0) -> None:
    """Make the primary context of a GPU current for this thread. It is kept until the process ends.

    Raises:
        EnvironmentLacks: no driver or GPU.
    """
    call("cuCtxSetCurrent", _primary_context(index))


def freed_by(name: str) -> Callable[[Any], None]:
    """What frees a thing of the current context, whichever thread collects its object: that may have another, or none.

    Args:
        name: of the driver's function.

    Raises:
        EnvironmentLacks: no driver or GPU.
    """
    driver: Any = library()
    context = ctypes.c_void_p()
    call("cuCtxGetCurrent", ctypes.byref(context))

    def free(thing: Any) -> None:
        # At the process's end all of it goes.
        if not sys.is_finalizing() and driver.cuCtxPushCurrent_v2(context) == 0:
            getattr(driver, name)(thing)
            driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))

    return free


class Memory:
    """Zeroed device memory in the current context, freed with the object.

    Attributes:
        address: where it starts.
    """

    def __init__(self, size: int) -> None:
        """Allocate ``size`` bytes, at least one.

        Raises:
            InferenceError: the GPU has no such block free.
        """
        address = ctypes.c_uint64()
        self.address = 0
        self._free = freed_by("cuMemFree_v2")
        call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(size, 1)))
        self.address = address.value
        call("cuMemsetD8_v2", address, ctypes.c_ubyte(0), ctypes.c_size_t(max(size, 1)))
        _settle()

    def __del__(self) -> None:
        if self.address:
            self._free(ctypes.c_uint64(self.address))


def upload(address: int, array: npt.NDArray[Any]) -> None:
    """Copy a C-contiguous array to device memory; it has arrived when this returns."""
    call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), _pointer(array), ctypes.c_size_t(array.nbytes))
    _settle()


def download(array: npt.NDArray[Any], address: int) -> None:
    """Fill a C-contiguous array from device memory. What streams still write there has to be waited for before."""
    call("cuMemcpyDtoH_v2", _pointer(array), ctypes.c_uint64(address), ctypes.c_size_t(array.nbytes))


def _pointer(array: np.ndarray[Any, Any]) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


def _settle() -> None:
    """Wait for what was put on the default stream, which our streams do not wait for.

    Clearing memory returns at once, and a copy from pageable memory when the bytes are staged, not when they have
    arrived (API synchronization behavior, in the CUDA driver API's manual).
    """
    call("cuCtxSynchronize")


@contextlib.contextmanager
def page_locked(memory: npt.NDArray[Any]) -> Iterator[None]:
    """Within the block, the GPU copies from and to ``memory`` by itself.

    Where the driver refuses (it limits how much may be locked, and not every system lets it lock shared memory), copies
    are as slow as before, and nothing else changes.
    """
    try:
        call("cuMemHostRegister_v2", _pointer(memory), ctypes.c_size_t(memory.nbytes), ctypes.c_uint(0))
    except InferenceError as error:
        _log.debug("memory is not page-locked: %s", error)
        yield
        return
    try:
        yield
    finally:
        call("cuMemHostUnregister", _pointer(memory))


def is_page_locked(memory: npt.NDArray[Any]) -> bool:
    """Whether the GPU copies from this memory by itself."""
    kind = ctypes.c_uint()
    driver: Any = library()
    # The driver does not know ordinary memory, and says that it is no valid value.
    known = driver.cuPointerGetAttribute(ctypes.byref(kind), _MEMORY_TYPE, ctypes.c_uint64(memory.ctypes.data)) == 0
    return known and kind.value == _HOST_MEMORY


class AnyStream(Protocol):
    """A stream of ours or of pycuda's."""

    @property
    def handle(self) -> int:
        """The driver's handle of it."""


class Stream:
    """A stream that does not wait for the default one; it goes with the object, when what is on it has run.

    Attributes:
        handle: the driver's handle of it.
    """

    def __init__(self) -> None:
        handle = ctypes.c_void_p()
        self.handle = 0
        self._free = freed_by("cuStreamDestroy_v2")
        call("cuStreamCreate", ctypes.byref(handle), ctypes.c_uint(_NON_BLOCKING))
        assert handle.value is not None
        self.handle = handle.value

    def __del__(self) -> None:
        if self.handle:
            self._free(ctypes.c_void_p(self.handle))

    def synchronize(self) -> None:
        """Wait for everything on it."""
        call("cuStreamSynchronize", ctypes.c_void_p(self.handle))


class Event:
    """A point in a stream, with the time at which the device reached it; it goes with the object."""

    def __init__(self, *, blocking: bool = False) -> None:
        """``blocking``: waiting for it frees the processor, and takes longer to wake up."""
        self._handle = ctypes.c_void_p()
        self._free = freed_by("cuEventDestroy_v2")
        self._is_in_graph = False
        call("cuEventCreate", ctypes.byref(self._handle), ctypes.c_uint(_BLOCKING_SYNC if blocking else 0))

    def __del__(self) -> None:
        # A graph refers to the events that it sets, and may outlive their objects: those stay till the process ends.
        if self._handle and not self._is_in_graph:
            self._free(self._handle)

    def record(self, stream: AnyStream, *, in_graph: bool = False) -> None:
        """Set it when the stream comes here; ``in_graph``: on every launch of the graph that is being recorded."""
        self._is_in_graph = self._is_in_graph or in_graph
        flags = _EXTERNAL if in_graph else 0
        call("cuEventRecordWithFlags", self._handle, ctypes.c_void_p(stream.handle), ctypes.c_uint(flags))

    def hold(self, stream: AnyStream) -> None:
        """What is put on the stream from now on waits for it."""
        call("cuStreamWaitEvent", ctypes.c_void_p(stream.handle), self._handle, ctypes.c_uint(0))

    def synchronize(self) -> None:
        """Wait for it."""
        call("cuEventSynchronize", self._handle)

    def milliseconds_until(self, later: Event) -> float:
        """Time on the device between two events that have passed."""
        value = ctypes.c_float()
        call("cuEventElapsedTime", ctypes.byref(value), self._handle, later._handle)
        return value.value
