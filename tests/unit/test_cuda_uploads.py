"""What is uploaded or cleared has arrived before a stream can read it: our streams do not wait for the default one."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from runtime.cuda import gpu
from shared.errors import InferenceError
from tests.support.cuda_on_cpu import HostDriver, HostMemory
from trt_builder.cuda import Cuda

VALUES = np.arange(1, 7, dtype=np.float32)


class DefaultStream:
    """Takes work, and does it when somebody waits: a GPU that is busy with other processes."""

    def __init__(self) -> None:
        self._work: list[Callable[[], None]] = []

    def put(self, work: Callable[[], None]) -> None:
        self._work.append(work)

    def finish(self) -> None:
        while self._work:
            self._work.pop(0)()


def seen_by_a_stream(address: int) -> np.ndarray[Any, Any]:
    """What a kernel would read now."""
    return np.frombuffer((ctypes.c_float * VALUES.size).from_address(address), np.float32).copy()


def late_pycuda(stream: DefaultStream) -> Any:
    """pycuda.driver with copies from pageable memory that are staged when the call returns, and no more."""

    class Driver(HostDriver):
        class Context:
            synchronize = staticmethod(stream.finish)

        @staticmethod
        def mem_alloc(size: int) -> HostMemory:
            memory = HostDriver.mem_alloc(size)
            memory.memory[:] = 0xFF
            return memory

        @staticmethod
        def memset_d8(memory: int, value: int, size: int) -> None:
            stream.put(lambda: ctypes.memset(memory, value, size))

        @staticmethod
        def memcpy_htod(address: int, array: np.ndarray[Any, Any]) -> None:
            staged = array.copy()
            stream.put(lambda: ctypes.memmove(address, staged.ctypes.data, staged.nbytes))

    return Driver


class LateLibrary:
    """The same of the functions of libcuda that the builder calls."""

    def __init__(self) -> None:
        self._stream = DefaultStream()
        self._memory: list[Any] = []

    def cuMemAlloc_v2(self, address: Any, size: ctypes.c_size_t) -> int:  # noqa: N802 (CUDA's name)
        self._memory.append(ctypes.create_string_buffer(b"\xff" * size.value, size.value))
        address._obj.value = ctypes.addressof(self._memory[-1])
        return 0

    def cuMemsetD8_v2(self, address: Any, value: Any, size: Any) -> int:  # noqa: N802
        self._stream.put(lambda: ctypes.memset(address.value, value.value, size.value))
        return 0

    def cuMemcpyHtoD_v2(self, address: Any, data: bytes, size: Any) -> int:  # noqa: N802
        self._stream.put(lambda: ctypes.memmove(address.value, data, size.value))
        return 0

    def cuCtxSynchronize(self) -> int:  # noqa: N802
        self._stream.finish()
        return 0


def test_the_runtime_s_memory_holds_what_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "driver", late_pycuda(DefaultStream()))
    device = object.__new__(gpu.Gpu)
    cleared = device.allocate(VALUES.shape, VALUES.dtype)
    assert seen_by_a_stream(cleared.address).tolist() == [0] * VALUES.size
    uploaded = device.upload(VALUES[::-1])
    assert (uploaded.shape, uploaded.dtype) == (VALUES.shape, VALUES.dtype)
    assert seen_by_a_stream(uploaded.address).tolist() == VALUES[::-1].tolist()


def test_what_pycuda_refuses_to_record_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(stream: Any, enqueue: Any) -> None:
        raise HostDriver.Error("not in a graph")

    monkeypatch.setattr(gpu, "driver", HostDriver)
    monkeypatch.setattr(gpu, "Graph", refuse)
    with pytest.raises(InferenceError, match="not in a graph"):
        object.__new__(gpu.Gpu).graph(None, lambda: None)


def test_the_builder_s_memory_holds_what_it_was_given() -> None:
    cuda = Cuda(LateLibrary())
    address = cuda.allocate(VALUES.nbytes)
    assert seen_by_a_stream(address).tolist() == [0] * VALUES.size
    cuda.upload(address, VALUES.tobytes())
    assert seen_by_a_stream(address).tolist() == VALUES.tolist()
