"""The kernels of runtime/cuda on a CPU: compiled as C++ with `cuda_on_cpu.h`, and a GPU whose memory is the host's.

So that every machine with a C++ compiler tests the kernels' logic, under thread orders drawn from a seed. What it can't
show: reads that a GPU reorders, and speed.
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.cuda.compile import source
from runtime.cuda.gpu import DeviceArray, Kernels
from runtime.lidar import device_voxels
from runtime.models.calibration import device as calibration
from shared.errors import InferenceError

HEADER = Path(__file__).with_suffix(".h")
#: Compiled kernels, by the hash of their source: they take seconds each, and many tests and processes want the same.
KEPT = Path(__file__).resolve().parents[2] / ".cache" / "kernels-on-cpu"
_C_TYPES = {"P": ctypes.c_void_p, "i": ctypes.c_int, "f": ctypes.c_float, "d": ctypes.c_double}
_HALF = {
    'asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));': "value = half_to_float(bits);",
    'asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));': "bits = float_to_half(value);",
}


class HostDriver:
    """The calls of pycuda.driver that the TensorRT backend and benchmarks make, on host memory."""

    @staticmethod
    def mem_alloc(size: int) -> HostMemory:
        memory = np.zeros(size, np.uint8)
        address = HostMemory(memory.ctypes.data)
        address.memory = memory
        return address

    class Error(Exception):
        """What pycuda raises."""

    class Context:
        """No waiting."""

        @staticmethod
        def synchronize() -> None:
            """Everything is done already."""

    @staticmethod
    def memcpy_htod_async(address: int, array: np.ndarray[Any, Any], stream: Any = None) -> None:
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    memcpy_htod = memcpy_htod_async

    @staticmethod
    def memcpy_dtoh_async(array: np.ndarray[Any, Any], address: int, stream: Any = None) -> None:
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    memcpy_dtoh = memcpy_dtoh_async


class HostMemory(int):
    """Memory that `HostDriver.mem_alloc` gave: its address."""

    memory: np.ndarray[Any, Any]

    def free(self) -> None:
        """Let it go."""
        del self.memory


class HostStream:
    """Work is done when it is enqueued."""

    handle = 1

    def synchronize(self) -> None:
        """Nothing to wait for."""


class HostGraph:
    """What would be recorded is called at every launch."""

    def __init__(self, stream: Any, enqueue: Callable[[], None]) -> None:
        self.launch = enqueue


class HostEvent:
    """A point in a stream; takes no time."""

    def hold(self, stream: Any) -> None:
        """Passed."""

    def record(self, stream: Any, *, in_graph: bool = False) -> None:
        """Passed."""

    def synchronize(self) -> None:
        """Passed."""

    def milliseconds_until(self, later: HostEvent) -> float:
        """A little."""
        return 0.01


def full_after(monkeypatch: pytest.MonkeyPatch, gpu: type[Any], fitting: int) -> None:
    """Let a kind of GPU have memory for so many more arrays."""
    allocate, left = gpu.allocate, fitting

    def scarce(self: Any, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        nonlocal left
        left -= 1
        if left < 0:
            raise InferenceError("no memory")
        array: DeviceArray = allocate(self, shape, dtype)
        return array

    monkeypatch.setattr(gpu, "allocate", scarce)


class HostArray(DeviceArray):
    """Memory of the host that stands for a GPU's."""

    def get(self) -> np.ndarray[Any, Any]:
        array = np.empty(self.shape, self.dtype)
        if array.nbytes:
            ctypes.memmove(array.ctypes.data, self.address, array.nbytes)
        return array


class HostGpu:
    """A GPU of one multiprocessor in host memory.

    Args:
        folder: where compiled kernels are kept.
        seed: of the order of threads.
    """

    index = 0
    name = "CPU"
    architecture = "host"
    multiprocessors = 1

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self._folder, self._seed = folder, seed

    def allocate(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        memory = np.zeros(max(int(np.prod(shape)), 1), dtype)
        return HostArray(memory.ctypes.data, shape, np.dtype(dtype), memory)

    def upload(self, array: np.ndarray[Any, Any]) -> DeviceArray:
        memory = np.ascontiguousarray(array).copy()
        return HostArray(memory.ctypes.data, array.shape, array.dtype, memory)

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        return np.zeros(shape, dtype)

    def to_device(self, array: np.ndarray[Any, Any], address: int, stream: Any) -> None:
        contiguous = np.ascontiguousarray(array)
        ctypes.memmove(address, contiguous.ctypes.data, contiguous.nbytes)

    def is_page_locked(self, array: np.ndarray[Any, Any]) -> bool:
        """Never: copies go through the threads that stage them."""
        return False

    def to_host(self, source: DeviceArray, array: np.ndarray[Any, Any], stream: Any) -> None:
        ctypes.memmove(array.ctypes.data, source.address, array.nbytes)

    def fill(self, array: DeviceArray, word: int, stream: Any) -> None:
        count = array.nbytes // 4
        np.ctypeslib.as_array((ctypes.c_uint32 * count).from_address(array.address))[:] = word

    def stream(self) -> HostStream:
        return HostStream()

    def event(self, *, blocking: bool = False) -> HostEvent:
        return HostEvent()

    def graph(self, stream: Any, enqueue: Callable[[], None]) -> HostGraph:
        return HostGraph(stream, enqueue)

    def kernels(
        self, files: Sequence[Path], signatures: Mapping[str, str], constants: Mapping[str, str], stream: Any
    ) -> Kernels:
        library = _compile(files, signatures, constants, self._folder)
        seeds = itertools.count(self._seed)
        functions = {
            name: _Kernel(getattr(library, f"run_{name}"), signature, seeds) for name, signature in signatures.items()
        }
        return Kernels(functions, stream)

    def synchronize(self) -> None:
        """Everything is done already."""

    def used_memory(self) -> int:
        """Not counted."""
        return 0


HostDriver.Stream = HostStream  # type: ignore[attr-defined]


class _Kernel:
    def __init__(self, function: Any, signature: str, seeds: Any) -> None:
        self._function, self._types, self._seeds = function, [_C_TYPES[letter] for letter in signature], seeds

    def prepared_async_call(self, grid: Any, block: Any, stream: Any, *arguments: Any) -> None:
        values = [kind(value) for kind, value in zip(self._types, arguments, strict=True)]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        self._function(*grid, block[0], next(self._seeds), pointers)


def compiler() -> str | None:
    """A C++ compiler; None without one."""
    return shutil.which("g++") or shutil.which("clang++")


def use(monkeypatch: pytest.MonkeyPatch, folder: Path, seed: int = 0) -> HostGpu:
    """A GPU on the CPU for a test; frames of a few thousand points make buffers grow.

    Args:
        monkeypatch: of the test.
        folder: where compiled kernels are kept.
        seed: of the order of threads.
    """
    for steps in (device_voxels, calibration):
        monkeypatch.setattr(steps, "POINT_CAPACITY", 1 << 14)
    return HostGpu(folder, seed)


def _compile(files: Sequence[Path], kernels: Iterable[str], constants: Mapping[str, str], folder: Path) -> Any:
    text = source(files)
    for original, replacement in _HALF.items():
        assert original in text
        text = text.replace(original, replacement)
    runners = "".join(
        f'extern "C" void run_{name}(unsigned blocks, unsigned lines, unsigned threads, unsigned seed, '
        f"void** arguments) {{ launch({name}, blocks, lines, threads, seed, arguments); }}\n"
        for name in kernels
    )
    macros = "".join(f"#define {name} {value}\n" for name, value in sorted(constants.items()))
    text = f'{HEADER.read_text()}\n{macros}{text}\n#line 1 "runners"\n{runners}'
    text = re.sub(r'extern "C" __global__', "static", text)
    name = hashlib.sha256(text.encode()).hexdigest()
    library = folder / f"{name}.so"
    if not library.is_file():
        chosen = compiler()
        assert chosen is not None
        folder.mkdir(parents=True, exist_ok=True)
        made = folder / f"{name}-{os.getpid()}.so"
        command = [
            chosen,
            "-std=c++17",
            "-O1",
            "-ffp-contract=off",
            "-w",
            "-fPIC",
            "-shared",
            "-o",
            str(made),
            "-x",
            "c++",
            "-",
        ]
        subprocess.run(command, input=text, text=True, check=True)
        made.replace(library)
    return ctypes.CDLL(str(library))
