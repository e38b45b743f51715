"""The GPUs of this machine, asked of the driver itself: no CUDA toolkit, TensorRT or Python package needed.

libcuda.so.1 is there wherever a driver is (Jetson included, where nvidia-smi often is not).
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared import provenance

# Names and numbers of CUDA's driver API (cuda.h): CUdevice_attribute.
_SM_COUNT = 16
_CAPABILITY_MAJOR = 75
_CAPABILITY_MINOR = 76


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        index: position, as in ``cuda:0``.
        name: the vendor's name of it.
        capability: compute capability, (9, 0) for Hopper.
        multiprocessors: number of streaming multiprocessors; tactics depend on it.
        memory: bytes of device memory.
    """

    index: int
    name: str
    capability: tuple[int, int]
    multiprocessors: int
    memory: int

    @property
    def architecture(self) -> str:
        """The compute capability as it stands in names: ``sm90``."""
        return f"sm{self.capability[0]}{self.capability[1]}"


@functools.cache
def _driver() -> Any | None:
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    return library if library.cuInit(0) == 0 else None


def find_gpus() -> list[Gpu]:
    """Every GPU that the driver shows; empty without driver or GPU."""
    library = _driver()
    count = ctypes.c_int(0)
    if library is None or library.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    return [_describe(library, index) for index in range(count.value)]


def _describe(library: Any, index: int) -> Gpu:
    device = ctypes.c_int()
    library.cuDeviceGet(ctypes.byref(device), index)
    name = ctypes.create_string_buffer(256)
    library.cuDeviceGetName(name, len(name), device)
    memory = ctypes.c_size_t()
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        library.cuDeviceGetAttribute(ctypes.byref(value), number, device)
        return value.value

    return Gpu(
        index=index,
        name=name.value.decode(errors="replace"),
        capability=(attribute(_CAPABILITY_MAJOR), attribute(_CAPABILITY_MINOR)),
        multiprocessors=attribute(_SM_COUNT),
        memory=memory.value,
    )


def cuda_of_driver() -> str | None:
    """The newest CUDA version that the driver knows, ``13.0``, or None without a driver."""
    library = _driver()
    version = ctypes.c_int(0)
    if library is None or library.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def driver_version() -> str | None:
    """Version of the kernel driver, for example ``580.82.07``; on Jetson the CUDA version that it knows."""
    _, version = provenance.gpu()
    if version is not None:
        return version
    report = Path("/proc/driver/nvidia/version")
    if report.is_file():
        for word in report.read_text(encoding="utf-8", errors="replace").split():
            if word[:1].isdigit() and "." in word:
                return word
    cuda = cuda_of_driver()
    return f"CUDA {cuda}" if cuda else None
