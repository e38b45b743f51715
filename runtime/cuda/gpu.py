"""A GPU: its primary context, memory, streams and events, through pycuda.

The primary context is the one that TensorRT, PyTorch and ONNX Runtime use too. Memory is allocated once, when a model
is loaded; everything that a buffer's user keeps of it holds a reference to the allocation.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import importlib.util
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.devices import Device
from shared.errors import EnvironmentLacks
from shared.lazy import lazy_import

driver = lazy_import("pycuda.driver", install="pip install pycuda (needs the CUDA toolkit)")

# Values of CUDA's driver API (cuda.h): CU_STREAM_NON_BLOCKING.
_NON_BLOCKING = 1


@dataclass(frozen=True)
class DeviceArray:
    """A C-contiguous array in device memory.

    Attributes:
        address: where it starts.
        shape: its shape.
        dtype: its NumPy dtype.
        owner: whatever keeps the memory allocated.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: Any = field(repr=False)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """What PyTorch and others wrap without a copy."""
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (self.address, False), "version": 3}

    def first(self, rows: int) -> DeviceArray:
        """The first rows, as a view."""
        return DeviceArray(self.address, (rows, *self.shape[1:]), self.dtype, self.owner)

    def reshaped(self, *shape: int) -> DeviceArray:
        """The same bytes in another shape."""
        return DeviceArray(self.address, shape, self.dtype, self.owner)

    def get(self) -> npt.NDArray[Any]:
        """A copy in host memory. Waits for the device."""
        array: npt.NDArray[Any] = np.empty(self.shape, self.dtype)
        if array.nbytes:
            driver.Context.synchronize()
            driver.memcpy_dtoh(array, self.address)
        return array


class Gpu:
    """One GPU, made current for the process. Use `open_gpu`."""

    def __init__(self, index: int) -> None:
        device = driver.Device(index)
        self.index = index
        self.name: str = device.name()
        self.architecture = "sm_{}{}".format(*device.compute_capability())
        self.multiprocessors: int = device.get_attribute(driver.device_attribute.MULTIPROCESSOR_COUNT)
        self._context = device.retain_primary_context()
        self._context.push()
        # pycuda aborts at exit when a context is still current.
        atexit.register(self._context.pop)

    def allocate(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """Zeroed device memory, freed when the last array on it goes."""
        wanted = np.dtype(dtype)
        size = max(int(np.prod(shape, dtype=np.int64)) * wanted.itemsize, 1)
        memory = driver.mem_alloc(size)
        driver.memset_d8(memory, 0, size)
        # Our streams do not wait for the one that clears.
        driver.Context.synchronize()
        return DeviceArray(int(memory), shape, wanted, memory)

    def upload(self, array: npt.NDArray[Any]) -> DeviceArray:
        """A copy of an array in device memory, there when it returns: for what is kept, not for requests."""
        target = self.allocate(array.shape, array.dtype)
        driver.memcpy_htod(target.address, np.ascontiguousarray(array))
        # A copy from pageable memory returns before it has arrived, and our streams do not wait for its stream.
        driver.Context.synchronize()
        return target

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Page-locked host memory, which the GPU copies from and to by itself."""
        array: npt.NDArray[Any] = driver.pagelocked_zeros(shape, np.dtype(dtype))
        return array

    def stream(self) -> Any:
        """A new stream, which does not wait for the default one."""
        return driver.Stream(_NON_BLOCKING)

    def event(self) -> Any:
        """A new event that takes the time."""
        return driver.Event()

    def used_memory(self) -> int:
        """Bytes of device memory that are taken, by anybody, as the driver says."""
        free, total = driver.mem_get_info()
        return int(total - free)

    def synchronize(self) -> None:
        """Wait for everything."""
        self._context.synchronize()


@functools.cache
def _open(index: int) -> Gpu:
    return Gpu(index)


def open_gpu(device: Device) -> Gpu:
    """The GPU, one object a process.

    Raises:
        EnvironmentLacks: no pycuda, no driver, or no such GPU.
    """
    if importlib.util.find_spec("pycuda") is None:
        raise EnvironmentLacks(
            "Python package 'pycuda' is missing", where=str(device), hint="pip install pycuda (needs the CUDA toolkit)"
        )
    # Imported the other way round, TensorRT 8.6's builder crashes. One that does not load is no concern of others here.
    with contextlib.suppress(ImportError, OSError):
        importlib.import_module("tensorrt")
    try:
        driver.init()
    except driver.Error as error:
        raise EnvironmentLacks(
            f"CUDA does not start: {error}", where=str(device), hint="check nvidia-smi; in a container, --gpus all"
        ) from error
    count = driver.Device.count()
    if device.index >= count:
        raise EnvironmentLacks(f"the driver shows {count} GPUs", where=str(device), hint="check nvidia-smi")
    return _open(device.index)
