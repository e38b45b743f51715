"""A GPU made ready for a pipeline: memory by `shared.cuda`; streams, copies and page-locked memory by pycuda.

The primary context is the one that TensorRT, PyTorch and ONNX Runtime use too. Memory is allocated once, when a model
is loaded; everything that a buffer's user keeps of it holds a reference to the allocation.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.cuda.compile import compile_kernels
from runtime.cuda.graph import Graph
from runtime.devices import Device
from shared import cuda
from shared.errors import EnvironmentLacks, InferenceError
from shared.lazy import lazy_import

driver = lazy_import("pycuda.driver", install="pip install pycuda (needs the CUDA toolkit)")

# Values of CUDA's driver API (cuda.h): CU_STREAM_NON_BLOCKING.
_NON_BLOCKING = 1

#: What the kernels read and write, by name of the NumPy dtype; see ``common.cu``.
C_TYPES = {"float32": "float", "float16": "unsigned short"}


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
        return replace(self, shape=(rows, *self.shape[1:]))

    def part(self, start: int, shape: tuple[int, ...]) -> DeviceArray:
        """A view of another shape, from the item ``start`` of the flattened array on."""
        return replace(self, address=self.address + start * self.dtype.itemsize, shape=shape)

    def get(self) -> npt.NDArray[Any]:
        """A copy in host memory. Waits for the device."""
        array: npt.NDArray[Any] = np.empty(self.shape, self.dtype)
        if array.nbytes:
            driver.Context.synchronize()
            driver.memcpy_dtoh(array, self.address)
        return array


class DeviceOutputs(Mapping[str, npt.NDArray[Any]]):
    """Outputs of a component, copied to the host when somebody looks at them. Valid until the lane's next request."""

    def __init__(self, arrays: Mapping[str, DeviceArray]) -> None:
        self._arrays = arrays

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._arrays[name].get()

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


class Kernels:
    """Kernels that run on one stream."""

    def __init__(self, functions: Mapping[str, Any], stream: Any) -> None:
        self._functions, self._stream = functions, stream

    def launch(self, name: str, blocks: int | tuple[int, int], threads: int, *arguments: Any) -> None:
        """Enqueue a kernel; device arrays among the arguments are passed by their addresses.

        Args:
            name: of the kernel.
            blocks: of the grid, in a line or in several of (blocks a line, lines).
            threads: of a block.
            arguments: as the kernel's signature says.
        """
        values = [item.address if isinstance(item, DeviceArray) else item for item in arguments]
        grid = blocks if isinstance(blocks, tuple) else (blocks, 1)
        self._functions[name].prepared_async_call(grid, (threads, 1, 1), self._stream, *values)


class Gpu:
    """One GPU, made current for the process. Use `open_gpu`."""

    def __init__(self, index: int) -> None:
        info = cuda.find_gpus()[index]
        self.index = index
        self.name = info.name
        self.architecture = "sm_{}{}".format(*info.capability)
        self.multiprocessors = info.multiprocessors
        # pycuda launches kernels in a context that it has made current itself.
        self._context = driver.Device(index).retain_primary_context()
        self._context.push()
        # pycuda aborts at exit when a context is still current.
        atexit.register(self._context.pop)

    def allocate(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """Zeroed device memory, freed when the last array on it goes."""
        wanted = np.dtype(dtype)
        memory = cuda.Memory(int(np.prod(shape, dtype=np.int64)) * wanted.itemsize)
        return DeviceArray(memory.address, shape, wanted, memory)

    def upload(self, array: npt.NDArray[Any]) -> DeviceArray:
        """A copy of an array in device memory, there when it returns: for what is kept, not for requests."""
        target = self.allocate(array.shape, array.dtype)
        cuda.upload(target.address, np.ascontiguousarray(array))
        return target

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Page-locked host memory, which the GPU copies from and to by itself.

        Raises:
            InferenceError: there is not that much left.
        """
        try:
            array: npt.NDArray[Any] = driver.pagelocked_zeros(shape, np.dtype(dtype))
        except driver.Error as error:
            raise InferenceError(f"no page-locked memory for {shape} of {np.dtype(dtype)} ({error})") from error
        return array

    def stream(self) -> Any:
        """A new stream, which does not wait for the default one."""
        return driver.Stream(_NON_BLOCKING)

    def event(self, *, blocking: bool = False) -> cuda.Event:
        """A new event that takes the time; ``blocking``: waiting for it frees the processor, and wakes up later."""
        return cuda.Event(blocking=blocking)

    def graph(self, stream: Any, enqueue: Callable[[], None]) -> Graph:
        """What ``enqueue`` puts on the stream, recorded.

        Raises:
            InferenceError: something in it can't be recorded.
        """
        try:
            return Graph(stream, enqueue)
        except driver.Error as error:
            raise InferenceError(str(error)) from error

    def kernels(
        self, files: Sequence[Path], signatures: Mapping[str, str], constants: Mapping[str, str], stream: Any
    ) -> Kernels:
        """The kernels of some files, compiled and loaded, to be launched on ``stream``.

        Args:
            files: in the order in which they build on each other.
            signatures: kernel to its arguments: P an address, i an int32, f a float32, d a float64.
            constants: macros.
            stream: where they run.

        Raises:
            EnvironmentLacks: no compiler. ModelLoadError: the kernels don't compile.
        """
        module = driver.module_from_buffer(compile_kernels(files, constants, self.architecture))
        functions = {}
        for name, signature in signatures.items():
            functions[name] = module.get_function(name)
            functions[name].prepare(signature)
        return Kernels(functions, stream)

    def to_device(self, array: npt.NDArray[Any], address: int, stream: Any) -> None:
        """Enqueue a copy to device memory. Bytes in pageable memory are staged by the driver when this returns."""
        driver.memcpy_htod_async(address, np.ascontiguousarray(array), stream)

    def is_page_locked(self, array: npt.NDArray[Any]) -> bool:
        """Whether the device copies from an array in host memory by itself."""
        return cuda.is_page_locked(array)

    def to_host(self, source: DeviceArray, array: npt.NDArray[Any], stream: Any) -> None:
        """Enqueue a copy of the first bytes of ``source``, as many as ``array`` has, into page-locked memory."""
        driver.memcpy_dtoh_async(array, source.address, stream)

    def fill(self, array: DeviceArray, word: int, stream: Any) -> None:
        """Enqueue that every 32 bit word of an array becomes ``word``."""
        driver.memset_d32_async(array.address, word, array.nbytes // 4, stream)

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
    # TensorRT 8.6's builder crashes if pycuda was imported first. The TensorRT backend reports one that does not load.
    with contextlib.suppress(ImportError, OSError):
        importlib.import_module("tensorrt")
    try:
        driver.init()
    except driver.Error as error:
        raise EnvironmentLacks(
            f"CUDA does not start: {error}", where=str(device), hint="check nvidia-smi; in a container, --gpus all"
        ) from error
    count = len(cuda.find_gpus())
    if device.index >= count:
        raise EnvironmentLacks(f"the driver shows {count} GPUs", where=str(device), hint="check nvidia-smi")
    return _open(device.index)
